# Short names for the project's commands (`just` is on crates.io, PyPI and npm as rust-just). What each does is in the script it calls.

# List the recipes.
default:
    @just --list

# Compile everything, without running it.
check:
    cargo check --workspace --all-features --all-targets --locked

# Run the tests that need no server: MemoryStore, SQLite, the relay, the simulation.
test *args:
    cargo test --locked {{args}}

# Run every test, servers included.
test-all *args:
    scripts/test {{args}}

# Run the long fault tests.
soak *args:
    scripts/soak {{args}}

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

# Check licences, advisories, sources and duplicates of dependencies (needs cargo-deny).
deny:
    cargo deny check

# Compare the public API with the last tag (needs cargo-semver-checks and a tag).
semver:
    cargo semver-checks --workspace --baseline-rev "$(git describe --tags --abbrev=0)"

# Build the documentation.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked

# Run everything that a change must pass.
ci:
    .ci/run
