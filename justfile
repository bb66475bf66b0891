# Short names for the project's commands. `just` is on crates.io, PyPI (rust-just) and npm (rust-just).

# List the recipes.
default:
    @just --list

# Compile all code.
check:
    cargo check --workspace --all-features --all-targets --locked

# Run the tests that need no server: MemoryStore, SQLite, the relay, the simulation.
test *args:
    cargo test --locked {{args}}

# Run every test, including those that need a server.
test-all *args:
    scripts/test {{args}}

# Run the long fault tests.
soak *args:
    scripts/soak {{args}}

# Test an upgrade from an older commit.
upgrade *args:
    scripts/upgrade {{args}}

# Run the benchmarks.
bench *args:
    scripts/bench {{args}}

# Format the code.
fmt:
    cargo fmt --all

# Lint with all features.
lint:
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

# Check the spelling.
typos:
    scripts/typos

# Check the licences, advisories, sources and duplicate versions of dependencies (needs cargo-deny).
deny:
    cargo deny check

# Compare the public API with the last tag (needs cargo-semver-checks and a tag).
semver:
    cargo semver-checks --workspace --baseline-rev "$(git describe --tags --abbrev=0)"

# Build the documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked

# Run all checks that a change must pass.
ci:
    .ci/run
