# Daybreak as a container: it serves on port 8080, keeps everything that it writes in the volume /data, and needs nothing else
# that can be written to but /tmp. README says how it is run on a GPU, and what of this was tried.
#
#   docker build -t daybreak .
#   docker run -p 127.0.0.1:8080:8080 -v daybreak:/data daybreak

ARG NODE_IMAGE=node:24-trixie-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund --include=dev --include=optional
COPY tsconfig.json ./
COPY kernels kernels
COPY bench bench
COPY src src
RUN node src/setup/build.mjs && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE}
# Mesa has the drivers of AMD's and Intel's cards, and the software driver for machines without one. NVIDIA's comes from the
# host and asks for the two libraries of X11. Whatever user is given with --user may write to /data.
RUN apt-get update \
  && apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers libx11-6 libxext6 \
  && rm -rf /var/lib/apt/lists/* \
  && mkdir -m 1777 /data
WORKDIR /app
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json README.md LICENSE CHANGELOG.md ./
COPY src/setup/apt-settings.mjs src/setup/apt.mjs src/setup/device.mjs src/setup/driver-files.mjs src/setup/elf.mjs \
  src/setup/kernels.mjs src/setup/mesa-26.mjs src/setup/node-version.mjs src/setup/probe.mjs src/setup/
COPY bench/stubs bench/stubs
COPY studio studio
COPY models models
RUN ln -s /app/dist/src/cli/main.js /usr/local/bin/daybreak

# Media, tuned kernels and the drivers' compiled shaders are one volume. Mesa wants a folder for its sockets.
ENV NODE_ENV=production \
  XDG_CACHE_HOME=/data \
  XDG_RUNTIME_DIR=/tmp \
  NVIDIA_VISIBLE_DEVICES=all \
  NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility
VOLUME /data
EXPOSE 8080
USER 1000:1000
STOPSIGNAL SIGTERM
# A large model takes its time to load. With keys it is unauthorised, and so it is up.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8080/readyz').then(({ status }) => process.exit(status === 200 || status === 401 ? 0 : 1), () => process.exit(1))"]
# Node itself is process 1: it hears of SIGTERM, and its engine's process is a child of its own that it waits for.
ENTRYPOINT ["node", "/app/dist/src/cli/main.js"]
CMD ["serve", "--demo", "--host", "0.0.0.0"]
