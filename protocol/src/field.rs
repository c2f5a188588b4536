//! How the fields of a header become typed values, and back.

use std::borrow::Cow;

use bytes::Bytes;
use sluice_model::{GroupName, LogOffset, QueueId, QueueOffset, Timestamp, TopicName};

use crate::{Ext, FieldError};

/// A value with a text form on the wire.
pub(crate) trait Wire: Sized {
    /// What a reader expects, for error messages.
    const EXPECTED: &'static str;

    fn read(text: &str) -> Option<Self>;

    fn write(&self) -> Cow<'_, str>;
}

macro_rules! wire_numbers {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl Wire for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn write(&self) -> Cow<'_, str> {
                self.to_string().into()
            }
        }
    )*};
}

wire_numbers! {
    i32: "an integer of 32 bits", i64: "an integer of 64 bits", u32: "an integer from 0 to 4294967295",
    u64: "an integer from 0 of 64 bits",
}

macro_rules! wire_newtypes {
    ($($type:ident($number:ty): $expected:literal),* $(,)?) => {$(
        impl Wire for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                let number: $number = text.parse().ok()?;
                (i64::try_from(number).is_ok()).then_some(Self(number))
            }

            fn write(&self) -> Cow<'_, str> {
                self.0.to_string().into()
            }
        }
    )*};
}

wire_newtypes! {
    QueueId(u32): "a queue number from 0", QueueOffset(u64): "an offset from 0", LogOffset(u64): "an offset from 0",
    Timestamp(i64): "milliseconds since 1970",
}

impl Wire for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        // The C++ client writes its booleans as digits.
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ if text.eq_ignore_ascii_case("true") => Some(true),
            _ if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    fn write(&self) -> Cow<'_, str> {
        if *self { "true".into() } else { "false".into() }
    }
}

impl Wire for String {
    const EXPECTED: &'static str = "text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn write(&self) -> Cow<'_, str> {
        self.as_str().into()
    }
}

impl Wire for TopicName {
    const EXPECTED: &'static str = "a topic of 1 to 127 letters, digits, %, |, _ and -";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn write(&self) -> Cow<'_, str> {
        self.as_str().into()
    }
}

impl Wire for GroupName {
    const EXPECTED: &'static str = "a group of 1 to 248 letters, digits, %, |, _ and -";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn write(&self) -> Cow<'_, str> {
        self.as_str().into()
    }
}

pub(crate) fn parse<T: Wire>(key: &'static str, text: &str) -> Result<T, FieldError> {
    T::read(text).ok_or_else(|| FieldError::malformed(key, T::EXPECTED, text))
}

/// A field that must be there.
pub(crate) fn must<T: Wire>(ext: &Ext, key: &'static str) -> Result<T, FieldError> {
    parse(key, ext.get(key).ok_or_else(|| FieldError::missing(key, T::EXPECTED))?)
}

/// A field that may be absent. Nothing between the quotes counts as absent: the binary header cannot tell the two apart.
pub(crate) fn may<T: Wire>(ext: &Ext, key: &'static str) -> Result<Option<T>, FieldError> {
    ext.get(key).filter(|text| !text.is_empty()).map(|text| parse(key, text)).transpose()
}

pub(crate) fn put<T: Wire>(ext: &mut Ext, key: &'static str, value: &T) {
    ext.push_str(key, &value.write());
}

pub(crate) fn put_some<T: Wire>(ext: &mut Ext, key: &'static str, value: &Option<T>) {
    if let Some(value) = value {
        put(ext, key, value);
    }
}

/// A body with a typed form.
pub(crate) trait BodyForm: Sized {
    fn read(body: &Bytes) -> Result<Self, FieldError>;

    fn write(&self) -> Bytes;
}

impl BodyForm for Bytes {
    fn read(body: &Bytes) -> Result<Self, FieldError> {
        Ok(body.clone())
    }

    fn write(&self) -> Bytes {
        self.clone()
    }
}

impl BodyForm for String {
    fn read(body: &Bytes) -> Result<Self, FieldError> {
        String::from_utf8(body.to_vec()).map_err(|_| FieldError::new("body", "expected UTF-8"))
    }

    fn write(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }
}

/// Defines headers: structs whose fields stand in a header, each `must`, `may` be absent, or `or(..)` have a default.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $need:ident $(($default:expr))? $key:literal),* $(,)?
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            #[allow(unused_variables, reason = "a header may have no fields")]
            pub(crate) fn from_ext(ext: &$crate::Ext) -> Result<Self, $crate::FieldError> {
                Ok(Self { $($field: $crate::field::fields!(@read ext $need $(($default))? $key)?,)* })
            }

            #[allow(unused_mut, reason = "a header may have no fields")]
            pub(crate) fn to_ext(&self) -> $crate::Ext {
                let mut ext = $crate::Ext::new();
                $($crate::field::fields!(@write ext $need $key &self.$field);)*
                ext
            }
        }
    )*};
    (@read $ext:ident must $key:literal) => { $crate::field::must($ext, $key) };
    (@read $ext:ident may $key:literal) => { $crate::field::may($ext, $key) };
    (@read $ext:ident or ($default:expr) $key:literal) => {
        $crate::field::may($ext, $key).map(|value| value.unwrap_or($default))
    };
    (@write $ext:ident may $key:literal $value:expr) => { $crate::field::put_some(&mut $ext, $key, $value) };
    (@write $ext:ident $need:ident $key:literal $value:expr) => { $crate::field::put(&mut $ext, $key, $value) };
}
pub(crate) use fields;

/// Defines requests: as `fields!`, each with its code and, where it has one, the type of its body.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $code:ident $(($body:ident: $body_type:ty))? {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $need:ident $(($default:expr))? $key:literal),* $(,)?
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $(pub $body: $body_type,)?
        }

        impl $name {
            pub const CODE: $crate::RequestCode = $crate::RequestCode::$code;

            /// Reads the header's fields and the body.
            #[allow(unused_variables, reason = "a request may have no fields")]
            pub fn decode(frame: &$crate::Frame) -> Result<Self, $crate::FieldError> {
                let ext = &frame.header.ext;
                Ok(Self {
                    $($field: $crate::field::fields!(@read ext $need $(($default))? $key)?,)*
                    $($body: <$body_type as $crate::field::BodyForm>::read(&frame.body)?,)?
                })
            }

            /// The frame to be sent.
            #[allow(unused_mut, reason = "a request may have no fields")]
            pub fn encode(&self) -> $crate::Frame {
                let mut ext = $crate::Ext::new();
                $($crate::field::fields!(@write ext $need $key &self.$field);)*
                #[allow(unused_mut, unused_assignments, reason = "a request may have no body")]
                let mut body = bytes::Bytes::new();
                $(body = $crate::field::BodyForm::write(&self.$body);)?
                $crate::Frame::request(Self::CODE, ext, body)
            }
        }
    )*};
}
pub(crate) use requests;
