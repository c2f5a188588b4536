//! What `cost` measures; its other side is `native.rs`. A crate holds one plugin, so each has a feature.

#[cfg(feature = "trivial")]
#[sluice_sdk::filter(needs(value))]
fn trivial(r: sluice_sdk::Record<'_>) -> bool {
    match r.value().first() {
        Some(b'!') => panic!("told to"),
        first => first == Some(&b'k'),
    }
}

#[cfg(feature = "json")]
#[sluice_sdk::filter(needs(value))]
fn json(r: sluice_sdk::Record<'_>) -> bool {
    r.json().is_ok_and(|body| body["amount"].as_u64().is_some_and(|amount| amount > 500))
}

#[cfg(feature = "field")]
#[sluice_sdk::filter(needs(value))]
fn field(r: sluice_sdk::Record<'_>) -> bool {
    r.json_at("/amount")
        .is_ok_and(|amount| amount.and_then(|amount| amount.as_u64()).is_some_and(|amount| amount > 500))
}

#[cfg(feature = "upper")]
#[sluice_sdk::transform(needs(value))]
fn upper(r: sluice_sdk::Record<'_>, out: &mut sluice_sdk::Out<'_>) {
    out.send(sluice_sdk::Emit::same().value(r.value().to_ascii_uppercase()));
}

#[cfg(feature = "count")]
#[sluice_sdk::process(needs(key), stores("totals"))]
fn count(r: sluice_sdk::Record<'_>, ctx: &mut sluice_sdk::Context<'_>) {
    ctx.store("totals").increase(r.key().unwrap_or_default(), 1);
}

#[cfg(feature = "check")]
#[sluice_sdk::check_transaction]
fn check(message: &sluice_sdk::HalfMessage) -> Result<sluice_sdk::Decision, String> {
    Ok(if message.body.first() == Some(&b'k') { sluice_sdk::Decision::Commit } else { sluice_sdk::Decision::Unknown })
}
