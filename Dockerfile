# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# What the manifest names; the rest of the tree may change without a build.
COPY Cargo.toml Cargo.lock README.md ./
COPY src src
COPY benches benches
COPY examples examples
# Dependencies that were built stay built, whatever of ours changes. What is in a cache is in no layer, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --features server && \
    cp target/release/leasehold /usr/local/bin/leasehold

FROM debian:bookworm-slim
# For TLS to Redis.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/leasehold /usr/local/bin/leasehold
# A number, so that Kubernetes can see that it is not root. It needs no entry in /etc/passwd, and writes no file.
USER 65532:65532
ENV LEASEHOLD_LISTEN=:7420
EXPOSE 7420
# Whether it lives: one that waits for its store must not be replaced for that.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["leasehold", "health", "--live"]
STOPSIGNAL SIGTERM
# Beyond loopback it asks for tokens (LEASEHOLD_TOKENS, LEASEHOLD_TOKENS_FILE), or for --insecure.
ENTRYPOINT ["leasehold"]
CMD ["serve"]
