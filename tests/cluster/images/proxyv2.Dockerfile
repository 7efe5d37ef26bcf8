FROM scratch
COPY . /
ENV PATH=/usr/local/bin:/usr/sbin
ENTRYPOINT ["/usr/local/bin/pilot-agent"]
