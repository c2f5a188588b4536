//! Words that Java writes as enum names; some clients (C++) send their ordinals.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

macro_rules! words {
    ($($(#[$doc:meta])* $type:ident { $($(#[$word_doc:meta])* $name:ident = $ordinal:literal $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$word_doc])* $name),*
        }

        impl $type {
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Reads the word on the wire.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($text => Some(Self::$name),)* _ => None }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Form { Word(String), Ordinal(u8) }
                let expected = concat!("expected one of", $(" ", $text),*);
                match Form::deserialize(from).map_err(|_| D::Error::custom(expected))? {
                    $(Form::Ordinal($ordinal) => Ok(Self::$name),)*
                    Form::Word(word) => {
                        Self::parse(&word).ok_or_else(|| D::Error::custom(format!("{expected}, got {word:?}")))
                    }
                    Form::Ordinal(other) => Err(D::Error::custom(format!("{expected}, got {other}"))),
                }
            }
        }
    )*};
}

pub(super) use words;

words! {
    /// How a consumer gets its messages.
    ConsumeType {
        /// It pulls when it likes.
        Actively = 0 "CONSUME_ACTIVELY",
        /// Its client library pulls for it.
        Passively = 1 "CONSUME_PASSIVELY",
        /// It pops.
        Pop = 2 "CONSUME_POP",
    }

    /// Who of a group gets a message.
    MessageModel {
        /// Every member.
        Broadcasting = 0 "BROADCASTING",
        /// One member.
        Clustering = 1 "CLUSTERING",
    }

    /// Where a group begins that has no offset.
    ConsumeFromWhere {
        Last = 0 "CONSUME_FROM_LAST_OFFSET",
        LastOrMinWhenNew = 1 "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        Min = 2 "CONSUME_FROM_MIN_OFFSET",
        Max = 3 "CONSUME_FROM_MAX_OFFSET",
        First = 4 "CONSUME_FROM_FIRST_OFFSET",
        Time = 5 "CONSUME_FROM_TIMESTAMP",
    }
}
