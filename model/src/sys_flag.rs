//! System flag bits of a message. Source: Apache RocketMQ `MessageSysFlag`.

/// The 32 flag bits of a message; bits Sluice does not know pass through untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SysFlag(pub i32);

/// What part of a transaction a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    None,
    Prepared,
    Commit,
    Rollback,
}

const COMPRESSED: i32 = 0x1;
const TRANSACTION: i32 = 0xC;
const BORN_V6: i32 = 0x10;
const STORE_V6: i32 = 0x20;
const COMPRESSION: i32 = 0x700;

/// How a compressed body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Lz4,
    Zstd,
    Zlib,
}

impl SysFlag {
    pub fn transaction(self) -> Transaction {
        match self.0 & TRANSACTION {
            0x4 => Transaction::Prepared,
            0x8 => Transaction::Commit,
            0xC => Transaction::Rollback,
            _ => Transaction::None,
        }
    }

    pub fn with_transaction(self, transaction: Transaction) -> Self {
        let bits = match transaction {
            Transaction::None => 0,
            Transaction::Prepared => 0x4,
            Transaction::Commit => 0x8,
            Transaction::Rollback => 0xC,
        };
        Self(self.0 & !TRANSACTION | bits)
    }

    /// How the body is compressed; `None` for a plain body. Old clients leave the type bits 0 and mean zlib.
    pub fn compression(self) -> Option<Compression> {
        (self.0 & COMPRESSED != 0).then_some(match self.0 & COMPRESSION {
            0x100 => Compression::Lz4,
            0x200 => Compression::Zstd,
            _ => Compression::Zlib,
        })
    }

    /// The same flag saying that the body is plain.
    pub fn without_compression(self) -> Self {
        Self(self.0 & !(COMPRESSED | COMPRESSION))
    }

    /// The same flag saying that the body is compressed so.
    pub fn with_compression(self, compression: Compression) -> Self {
        let bits = match compression {
            Compression::Lz4 => 0x100,
            Compression::Zstd => 0x200,
            Compression::Zlib => 0x300,
        };
        Self(self.0 & !COMPRESSION | COMPRESSED | bits)
    }

    pub fn born_v6(self) -> bool {
        self.0 & BORN_V6 != 0
    }

    pub fn store_v6(self) -> bool {
        self.0 & STORE_V6 != 0
    }

    pub fn with_hosts(self, born_v6: bool, store_v6: bool) -> Self {
        let born = if born_v6 { BORN_V6 } else { 0 };
        let store = if store_v6 { STORE_V6 } else { 0 };
        Self(self.0 & !(BORN_V6 | STORE_V6) | born | store)
    }
}
