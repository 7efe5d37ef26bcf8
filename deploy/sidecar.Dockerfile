# The sidecar. `deploy/build.sh` lays out the context: bin/ and lib/ per architecture, with libtorch
# for the CPU or, from a LIBTORCH with CUDA, for GPUs (give a BASE that has the driver's libraries).
#
# The base lends its C and C++ libraries and its roots of trust; nothing else of it remains, so
# there is no shell and no package manager to misuse.
ARG BASE=debian:12-slim
FROM ${BASE} AS base

FROM scratch
ARG TARGETARCH=amd64
COPY --from=base /usr/lib/*-linux-gnu/ld-linux-*.so.* /lib64/
COPY --from=base /usr/lib/*-linux-gnu/ld-linux-*.so.* /lib/
COPY --from=base /usr/lib/*-linux-gnu/libc.so.6 /usr/lib/*-linux-gnu/libm.so.6 /usr/lib/*-linux-gnu/libdl.so.2 \
    /usr/lib/*-linux-gnu/libpthread.so.0 /usr/lib/*-linux-gnu/librt.so.1 /usr/lib/*-linux-gnu/libutil.so.1 /usr/lib/*-linux-gnu/libgcc_s.so.1 \
    /usr/lib/*-linux-gnu/libstdc++.so.6 /lib/
COPY ${TARGETARCH}/lib/ /usr/local/lib/
COPY ${TARGETARCH}/bin/sconce-sidecar /usr/local/bin/
COPY ${TARGETARCH}/sbom/sconce-sidecar/ /usr/share/sbom/
# A name is not needed, a number is what `runAsNonRoot` can check.
USER 65532:65532
ENV SCONCE_DATA_DIR=/data SCONCE_ADMIN_LISTEN=0.0.0.0:9443 SCONCE_LOG_FORMAT=json
VOLUME /data
EXPOSE 8443 9443
ENTRYPOINT ["/usr/local/bin/sconce-sidecar"]
