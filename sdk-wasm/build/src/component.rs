use wasmparser::{Encoding, Parser, Payload};

use crate::error::Error;

/// Makes a component of a core module that carries its component type. Components are given back as they are.
///
/// # Errors
/// [`Error::Component`] if it is neither.
pub fn componentize(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let invalid = |e: String| Error::Component(e);
    if let Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) = Parser::new(0).parse_all(wasm).next() {
        return Ok(wasm.to_vec());
    }
    let typed = Parser::new(0)
        .parse_all(wasm)
        .any(|part| matches!(part, Ok(Payload::CustomSection(s)) if s.name().starts_with("component-type")));
    if !typed {
        return Err(invalid(
            "it exports no role; mark a function with #[filter], #[transform] or #[check_transaction]".into(),
        ));
    }
    let encoder = wit_component::ComponentEncoder::default().validate(true).module(wasm);
    encoder.and_then(|mut encoder| encoder.encode()).map_err(|e| invalid(format!("{e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_a_role_is_told_what_to_do() {
        let error = componentize(b"\0asm\x01\0\0\0").unwrap_err().to_string();
        assert!(error.contains("#[filter]"), "{error}");
    }

    #[test]
    fn a_component_stays_as_it_is() {
        let empty = b"\0asm\x0d\0\x01\0";
        assert_eq!(componentize(empty).unwrap(), empty);
    }
}
