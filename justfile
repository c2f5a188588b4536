# The daily commands; `just` lists them.
_default:
    @just --list

# Everything that must hold before a commit; changes nothing.
verify: fmt-check clippy test

test:
    cargo test --workspace

clippy:
    cargo clippy --workspace --all-targets -- -D warnings

fmt-check:
    cargo fmt --all --check

# Repairs what machines can repair.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# A name server, a broker and the REST API in one process.
run *ARGS:
    cargo run --release -- dev {{ARGS}}

demo:
    cargo run --release -- demo

# What CI has no time for: new plugins of every role are written, built and tested, for which the runtime is compiled anew (minutes).
slow:
    cargo test -p sluice-cli --test new_plugin -- --ignored

# The official clients against a Sluice of their own.
interop:
    .ci/interop

# Sluice beside Apache RocketMQ.
bench:
    bench/compare
