# The gateway, without a shell and without root. Build it here:
#
#     docker build -t migration-gateway .
#
# Run it with a configuration, its secrets, and a volume for the database; everything else may be read-only:
#
#     docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 40 \
#         -p 127.0.0.1:8080:8080 -v migration-gateway:/data \
#         -v "$PWD/gateway.toml:/etc/migration-gateway/gateway.toml:ro" \
#         -v "$PWD/secrets:/run/secrets:ro" migration-gateway
#
# The two variables below lie over `listen` and `url` of the configuration. Files that are mounted must be readable for
# user 65532, and a folder that is mounted in place of the volume must be writable for it.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked \
    && install -D target/release/migration-gateway /image/usr/local/bin/migration-gateway \
    && install -d -m 0700 /image/data

# The C library of the same Debian release as above, certificates, and a user; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/ /usr/
COPY --from=build --chown=65532:65532 /image/data /data
# A container has loopback addresses of its own: whoever publishes the port decides who reaches it.
ENV MIGRATION_GATEWAY__SERVER__LISTEN=0.0.0.0:8080 \
    MIGRATION_GATEWAY__STORE__URL=sqlite:///data/operations.db
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=10s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/migration-gateway", "healthcheck", "--config", "/etc/migration-gateway/gateway.toml"]
ENTRYPOINT ["/usr/local/bin/migration-gateway"]
CMD ["serve", "--config", "/etc/migration-gateway/gateway.toml"]
