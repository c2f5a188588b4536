//! Who speaks: the client's language and version, as headers carry them.

/// The version that Sluice announces: `V5_3_3`. Java clients use SQL92 filters and the newer heartbeat only with a broker
/// that announces at least 232. Source: Apache RocketMQ `MQVersion`.
pub const VERSION: i32 = 479;

macro_rules! languages {
    ($($name:ident = $code:literal $text:literal),* $(,)?) => {
        /// Language of a peer. Source: Apache RocketMQ `LanguageCode`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum Language {
            $($name,)*
            /// One that this table does not know.
            #[default]
            Unknown,
        }

        impl Language {
            pub(crate) fn from_code(code: u8) -> Self {
                match code { $($code => Self::$name,)* _ => Self::Unknown }
            }

            pub(crate) fn from_name(name: &str) -> Self {
                match name { $($text => Self::$name,)* _ => Self::Unknown }
            }

            pub(crate) fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* Self::Unknown => 7 }
            }

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "OTHER" }
            }
        }
    };
}

languages! {
    Java = 0 "JAVA", Cpp = 1 "CPP", Dotnet = 2 "DOTNET", Python = 3 "PYTHON", Delphi = 4 "DELPHI", Erlang = 5 "ERLANG",
    Ruby = 6 "RUBY", Other = 7 "OTHER", Http = 8 "HTTP", Go = 9 "GO", Php = 10 "PHP", Oms = 11 "OMS", Rust = 12 "RUST",
    NodeJs = 13 "NODE_JS",
}
