# One image for every command: docker run meshfever:0.1.0 monitor --service1 frontend --service2 cartservice ...
#
# Node 26 is the active LTS line since 2026-10-28, by the schedule of github.com/nodejs/Release. For a build that can be repeated, pin
# the image by digest: --build-arg NODE_IMAGE=node:26-trixie-slim@sha256:...
#
# What comes out holds node, the libraries it is linked with and meshfever: no shell, no package manager, nothing else of NODE_IMAGE. To
# look into a running pod, bring your own tools: kubectl debug -it POD --image=busybox --target=monitor
#
# `npm run image` builds it on a base made of this machine's node, and runs it as a cluster would.
ARG NODE_IMAGE=node:26-trixie-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json ./
COPY src ./src
RUN npm run build

FROM ${NODE_IMAGE} AS production
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
COPY topologies ./topologies
COPY experiments ./experiments
COPY training ./training
COPY k8s ./k8s
COPY --from=build /app/dist/src ./dist/src
# What this process has loaded is what a process of the image needs, that of the one native module included.
RUN node -e " \
    fs.mkdirSync('/runtime/app', { recursive: true }); \
    require('@resvg/resvg-js'); \
    const libraries = process.report.getReport().sharedObjects.filter((path) => fs.existsSync(path) && !path.startsWith('/app/')); \
    for (const path of libraries) fs.cpSync(path, '/runtime' + path, { dereference: true, preserveTimestamps: true }); \
    fs.cpSync(process.execPath, '/runtime/usr/local/bin/node', { dereference: true, preserveTimestamps: true }); \
  "
# Whatever the modes were where the image is built: everyone may read, nobody may write.
RUN chmod -R a=rX /app /runtime

FROM scratch
LABEL org.opencontainers.image.title="meshfever" \
      org.opencontainers.image.description="Takes the temperature of a service mesh" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=production /runtime /
COPY --from=production /app /app
WORKDIR /app
ENV NODE_ENV=production
# A number, not a name: the kubelet cannot tell whether a name is root, and runAsNonRoot then refuses the pod.
USER 65532:65532
EXPOSE 8080 8083
# Exec form: node is process 1 and gets SIGTERM itself; a shell or npm would swallow it.
# A small heap is collected in a few milliseconds; more threads only make it dearer, by a third of a poll of a mesh.
ENTRYPOINT ["/usr/local/bin/node", "--single-threaded-gc", "/app/dist/src/main.js"]
CMD ["--help"]
