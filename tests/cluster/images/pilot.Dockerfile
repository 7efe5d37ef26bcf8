FROM scratch
COPY . /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/pilot-discovery"]
