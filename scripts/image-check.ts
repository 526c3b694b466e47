/*
 * The image, built and run for real: `npm run image`. No registry is asked for a base: one is made of this machine's own node, with what
 * the Dockerfile's RUN lines call. What is built is looked at file by file, and run as a cluster would run it: node as process 1, any user
 * but root, no capability, a root that cannot be written to. Leaves the list of what is in it in dist/sbom.json.
 *
 * Needs buildah and root; as root on Debian and Ubuntu it is installed. Elsewhere this says how to get it and ends: in CI, as a failure.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { benchRuntime } from '../bench/runtime.js'
import { StartError } from '../src/core/errors.js'
import { type Child, killChildren, listeningUrl, startChild } from '../src/testbed/child-process.js'
import { findOrInstall, findProgram } from '../src/testbed/installed-program.js'
import { findPrometheus, startPrometheus } from '../src/testbed/prometheus-server.js'
import { packageRoot } from '../test/helpers/package-root.js'

const ROOT = packageRoot()
const SBOM_FILE = fileURLToPath(new URL('../sbom.json', import.meta.url))
const BASE = 'localhost/meshfever-base'
const IMAGE = 'localhost/meshfever'
/** Of the user who builds in it. */
const HOME = '/builder'

const MODULES = '/app/node_modules/'

const STOP_WITHIN_MS = 5_000
/** Of everything but node itself, whose size is the base's. A budget: what it grows by, every node of a cluster downloads. */
const LIMIT_MB = 80
/** Of what a program said before it failed, in characters. */
const SAID = 4_000
/** What a runtime gives to a container that names none. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const runtime = benchRuntime()

// Programs ---------------------------------------------------------------------------------------------------------------------

/** @returns stdout. @throws with what the program said */
function run(command: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
    cwd: ROOT,
  })
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `${stdout}${stderr}`.slice(-SAID)}`)
  return stdout
}

function findBuildah(): Promise<string> {
  const howTo = 'buildah is needed, as root, and was not found: apt-get install buildah (Debian, Ubuntu)'
  if (process.platform !== 'linux' || !runtime.program.isRoot) throw new StartError(howTo)
  return findOrInstall(runtime, {
    title: 'buildah',
    names: ['buildah'],
    variable: 'BUILDAH',
    debianPackage: 'buildah',
    howTo,
  })
}

type Buildah = (...args: readonly string[]) => string

/** With a storage of its own in `folder`, so that nobody's images are touched. */
function buildahIn(program: string, folder: string): Buildah {
  const storage = (driver: string) => [
    ...['--root', join(folder, 'storage'), '--runroot', join(folder, 'run'), '--storage-driver', driver],
  ]
  const hasOverlay = spawnSync(program, [...storage('overlay'), 'info']).status === 0
  const options = storage(hasOverlay ? 'overlay' : 'vfs')
  return (...args) => run(program, [...options, ...args]).trim()
}

/** Where the files of an image, or of nothing, are, to be looked at and changed. */
function mounted(buildah: Buildah, image: string): { readonly container: string; readonly folder: string } {
  const container = buildah('from', image)
  return { container, folder: buildah('mount', container) }
}

// Building ---------------------------------------------------------------------------------------------------------------------

/** The base: node and npm as the official image has them, and the three programs that the Dockerfile's RUN lines need. */
function makeBase(buildah: Buildah): void {
  const { container, folder } = mounted(buildah, 'scratch')
  const copy = (from: string, to = from): void => cpSync(from, join(folder, to), { recursive: true, dereference: true })
  const found = (name: string): string => {
    const path = findProgram(name, runtime.program)
    assert(path !== undefined, `${name} is not on the PATH`)
    return path
  }
  const programs = ['sh', 'env', 'chmod'].map(found)
  for (const path of programs) copy(path)
  copy(process.execPath, '/usr/local/bin/node')
  for (const [target, link] of [
    [found('sh'), '/bin/sh'],
    [found('env'), '/usr/bin/env'],
    ['../lib/node_modules/npm/bin/npm-cli.js', '/usr/local/bin/npm'],
  ] as const) {
    mkdirSync(dirname(join(folder, link)), { recursive: true })
    if (!existsSync(join(folder, link))) symlinkSync(target, join(folder, link))
  }
  copy(dirname(dirname(realpathSync(found('npm')))), '/usr/local/lib/node_modules/npm')
  const native = readdirSync(join(ROOT, 'node_modules/@resvg'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.node'))
    .map((path) => join(ROOT, 'node_modules/@resvg', path))
  const libraries = [process.execPath, ...programs, ...native].flatMap(
    (path) => run('ldd', [path]).match(/\/\S+/g) ?? [],
  )
  for (const path of new Set(libraries)) copy(path)
  for (const empty of [HOME, 'tmp', 'etc']) mkdirSync(join(folder, empty))
  writeFileSync(join(folder, 'etc/passwd'), `root:x:0:0:root:${HOME}:/bin/sh\n`)
  buildah('umount', container)
  buildah('commit', '--quiet', '--rm', container, BASE)
}

/**
 * What lets npm inside the build reach the registry that npm here reaches: its settings and its cache, mounted for the build and for
 * nothing else, so that no layer holds an address or a token.
 */
function npmVolumes(folder: string): readonly string[] {
  const setting = (name: string): string => {
    const value = run('npm', ['config', 'get', name]).trim()
    return value === 'null' || value === 'undefined' ? '' : value
  }
  const written = ['globalconfig', 'userconfig'].map(setting).filter((path) => existsSync(path))
  const authority = [setting('cafile'), process.env['NODE_EXTRA_CA_CERTS'] ?? ''].find((path) => existsSync(path))
  const lines = [
    ...written.map((path) => readFileSync(path, 'utf8')),
    `registry=${setting('registry')}`,
    `cache=${HOME}/.npm`,
    'prefer-offline=true',
    ...(authority === undefined ? [] : [`cafile=${HOME}/authority.pem`]),
  ]
  const npmrc = join(folder, 'npmrc')
  writeFileSync(npmrc, `${lines.join('\n')}\n`, { mode: 0o600 })
  const cache = setting('cache')
  mkdirSync(cache, { recursive: true })
  return [
    `${npmrc}:${HOME}/.npmrc:ro`,
    `${cache}:${HOME}/.npm`,
    ...(authority === undefined ? [] : [`${authority}:${HOME}/authority.pem:ro`]),
  ]
}

function build(buildah: Buildah, folder: string): void {
  buildah(
    ...['bud', '--isolation', 'chroot', '--build-arg', `NODE_IMAGE=${BASE}`, '--tag', IMAGE],
    ...npmVolumes(folder).flatMap((volume) => ['--volume', volume]),
    ROOT,
  )
}

// What is in it ----------------------------------------------------------------------------------------------------------------

interface ImageConfig {
  readonly User: string
  readonly Env: readonly string[]
  readonly Entrypoint: readonly string[]
  readonly WorkingDir: string
  readonly ExposedPorts: Readonly<Record<string, unknown>>
  readonly Labels: Readonly<Record<string, string>>
}

function configOf(buildah: Buildah): ImageConfig {
  const { OCIv1 } = JSON.parse(buildah('inspect', '--type', 'image', IMAGE)) as { OCIv1: { config: ImageConfig } }
  return OCIv1.config
}

interface Entry extends Stats {
  /** From the image's root, with a slash in front. */
  readonly path: string
}

function entriesOf(folder: string): readonly Entry[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((path) =>
    Object.assign(lstatSync(join(folder, path)), { path: `/${path}` }),
  )
}

function checkFiles(entries: readonly Entry[]): void {
  const odd = entries.filter(
    ({ mode, uid, gid }) => uid !== 0 || gid !== 0 || (mode & 0o6000) !== 0 || (mode & 0o444) !== 0o444,
  )
  assert.deepEqual(odd.map(pathOf), [], 'root’s, readable by everyone, and no setuid')
  const writable = entries.filter((entry) => !entry.isSymbolicLink() && (entry.mode & 0o222) !== 0)
  assert.deepEqual(writable.map(pathOf), [], 'nobody may write')
  const outside = entries.filter((entry) => entry.isFile() && !entry.path.startsWith('/app/')).map(pathOf)
  assert.deepEqual(
    outside.filter((path) => path !== '/usr/local/bin/node' && !/\/(ld-|lib)[^/]*\.so(\.\d+)*$/.test(path)),
    [],
    'node and its libraries: no shell, no package manager',
  )
  const own = entries.map(pathOf).filter((path) => path.startsWith('/app/') && !`${path}/`.startsWith(MODULES))
  const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    readonly files: readonly string[]
  }
  const expected = ['package.json', 'package-lock.json', ...files.filter((file) => !file.endsWith('.md'))]
  assert.deepEqual(
    own.filter(
      (path) => !expected.some((file) => `/app/${file}/`.startsWith(`${path}/`) || path.startsWith(`/app/${file}/`)),
    ),
    [],
    'what the package has',
  )
  assert.deepEqual(
    own.filter((path) => /\.ts$|\.test\./.test(path)),
    [],
    'no source, no tests',
  )
}

const pathOf = ({ path }: Entry): string => path

/** `name@version` of every package in a node_modules, those below other packages included. */
function packagesIn(nodeModules: string): readonly string[] {
  return readdirSync(nodeModules, { recursive: true, encoding: 'utf8' })
    .filter((path) => /(^|\/node_modules\/)(@[^/]+\/)?[^/@.][^/]*\/package\.json$/.test(path))
    .map((path) => JSON.parse(readFileSync(join(nodeModules, path), 'utf8')) as { name: string; version: string })
    .map(({ name, version }) => `${name}@${version}`)
}

/**
 * Writes the SBOM. Of the image's own files: of a checkout, `npm sbom --omit dev` leaves out what development needs as well.
 *
 * @param app - the image's
 * @param folder - for a copy, under the name that npm gives to the whole
 * @returns how many packages it lists, which are those of the image, and all of production
 */
function checkSbom(app: string, folder: string): number {
  const copy = join(folder, 'meshfever')
  for (const path of ['node_modules', 'package-lock.json']) {
    cpSync(join(app, path), join(copy, path), { recursive: true, verbatimSymlinks: true })
  }
  const manifest = JSON.parse(readFileSync(join(app, 'package.json'), 'utf8')) as Record<string, unknown>
  writeFileSync(join(copy, 'package.json'), JSON.stringify({ ...manifest, devDependencies: {} }))
  const sbom = run('npm', ['sbom', '--sbom-format', 'cyclonedx', '--prefix', copy])
  const { components, metadata } = JSON.parse(sbom) as {
    readonly components: readonly { readonly name: string; readonly version: string }[]
    readonly metadata: { readonly component: { readonly purl: string } }
  }
  assert.equal(metadata.component.purl, `pkg:npm/meshfever@${String(manifest['version'])}`)
  const listed = components.map(({ name, version }) => `${name}@${version}`)
  assert.deepEqual(
    [...new Set(listed)].sort(),
    [...new Set(packagesIn(join(app, 'node_modules')))].sort(),
    'SBOM and image',
  )
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, { readonly version: string; readonly dev?: boolean }>>
  }
  const production = Object.entries(packages).flatMap(([path, locked]) =>
    path === '' || locked.dev === true ? [] : [`${path.split('node_modules/').at(-1) ?? ''}@${locked.version}`],
  )
  assert.deepEqual(
    listed.filter((dependency) => !production.includes(dependency)),
    [],
    'production dependencies only',
  )
  writeFileSync(SBOM_FILE, sbom)
  return listed.length
}

function checkSize(entries: readonly Entry[]): string {
  const megabytes = (match: (path: string) => boolean): number =>
    entries.filter((entry) => entry.isFile() && match(entry.path)).reduce((sum, { size }) => sum + size, 0) / 1e6
  const node = megabytes((path) => path === '/usr/local/bin/node')
  const modules = megabytes((path) => path.startsWith(MODULES))
  const own = megabytes((path) => path.startsWith('/app/')) - modules
  const total = megabytes(() => true)
  assert(total - node < LIMIT_MB, `${(total - node).toFixed(1)} MB beside node, ${LIMIT_MB} MB allowed`)
  const mb = (value: number): string => `${value.toFixed(1)} MB`
  const libraries = total - node - modules - own
  return `${mb(total)}: node ${mb(node)}, its libraries ${mb(libraries)}, node_modules ${mb(modules)}, meshfever ${mb(own)}`
}

// Running it -------------------------------------------------------------------------------------------------------------------

interface As {
  readonly uid: number
  readonly gid: number
  readonly readOnly: boolean
}

/** What a runtime puts into a container before it starts. */
function prepare(folder: string): void {
  for (const path of ['proc', 'dev', 'etc']) mkdirSync(join(folder, path))
  for (const path of ['dev/null', 'dev/urandom', 'etc/hosts']) writeFileSync(join(folder, path), '')
}

/** Root may chroot and change its user, and nothing else; what it then starts may do nothing at all. */
const ENTER = `
set -e
root=$1 flags=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for path in /dev/null /dev/urandom /etc/hosts; do mount --bind "$path" "$root$path"; done
mount -o "remount,bind,$flags" "$root"
exec setpriv --inh-caps=-all,+sys_chroot,+setuid,+setgid setpriv --no-new-privs --bounding-set=-all \\
  chroot --userspec="$user" --groups= "$root" "$@"
`

/** To be ended by their own numbers: a process that changed its user outlives the one that started it. */
const containers = new Set<Child>()

function start(folder: string, { Env }: ImageConfig, { uid, gid, readOnly }: As, command: readonly string[]): Child {
  const child = startChild({
    name: command.join(' '),
    command: 'unshare',
    args: [
      ...['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', ENTER, 'sh'],
      ...[folder, readOnly ? 'ro' : 'rw', `${uid}:${gid}`, ...command],
    ],
    environment: { PATH, ...Object.fromEntries(Env.map((entry) => entry.split(/=(.*)/s, 2) as [string, string])) },
  })
  containers.add(child)
  return child
}

/** Process 1 of a container, by the number it has here; undefined when there is none (any more). */
function pidIn(child: Child): number | undefined {
  const children = `/proc/${child.pid}/task/${child.pid}/children`
  return existsSync(children) ? Number(readFileSync(children, 'utf8').trim()) || undefined : undefined
}

/** A field of what the kernel says of a process. */
function statusOf(pid: number): (field: string) => string {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return (field) => new RegExp(`^${field}:[ \\t]*(.*)$`, 'm').exec(status)?.[1]?.trim() ?? ''
}

/** Resolves when a path is answered with 200. */
async function answered(url: string, path: string): Promise<void> {
  while ((await fetch(new URL(path, url))).status !== 200) await delay(50)
}

async function answer(url: string, path: string): Promise<string> {
  const response = await fetch(new URL(path, url))
  assert.equal(response.status, 200, path)
  return response.text()
}

interface Daemon {
  readonly folder: string
  readonly config: ImageConfig
  readonly prometheusUrl: string
  readonly args: readonly string[]
  readonly as: As
}

/** @returns what was measured, in words */
async function checkDaemon({ folder, config, prometheusUrl, args, as }: Daemon): Promise<string> {
  const startMs = performance.now()
  const child = start(folder, config, as, [
    ...[...config.Entrypoint, ...args, '--log-format=json', '--listen-address=127.0.0.1', '--prometheus-port=0'],
    ...['--poll-interval-seconds=1', `--prometheus-url=${prometheusUrl}`],
  ])
  const url = await child.waitForLine(listeningUrl)
  const startedMs = performance.now() - startMs
  const pid = pidIn(child)
  assert(pid !== undefined)
  const status = statusOf(pid)
  assert.equal(status('NSpid'), `${pid}\t1`, 'process 1')
  if (as.uid !== 0) {
    const [id, group] = [as.uid, as.gid].map((number) => Array<number>(4).fill(number).join('\t'))
    assert.deepEqual(
      ['Uid', 'Gid', 'Groups', 'NoNewPrivs', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map(status),
      [id, group, '', '1', ...Array<string>(4).fill('0'.repeat(16))],
      'without a privilege',
    )
  }
  assert.equal(await answer(url, '/healthz'), 'ok\n')
  await answered(url, '/readyz') // Prometheus was found, and answers
  assert.match(await answer(url, '/metrics'), /^meshfever_polls_total\{.*outcome="(ok|empty)".*\} [1-9]/m)
  const page = await answer(url, '/')
  const assets = [...page.matchAll(/<(?:script|link)\b[^>]* (?:src|href)="([^"]+)"/g)].map(([, path]) => path ?? '')
  assert(assets.length > 0, 'the page has assets')
  for (const path of assets) await answer(url, path)
  const stopMs = performance.now()
  process.kill(pid, 'SIGTERM')
  const code = await child.exited
  const stoppedMs = performance.now() - stopMs
  assert.equal(code, 0, 'exit code after SIGTERM')
  assert(stoppedMs < STOP_WITHIN_MS, `stopped after ${Math.round(stoppedMs)} ms`)
  const user = `${as.uid}:${as.gid}, ${as.readOnly ? 'read-only root' : 'writable root'}`
  return `${args[0] ?? ''} as ${user}: listens after ${Math.round(startedMs)} ms, stops after ${Math.round(stoppedMs)} ms with 0`
}

/** That the root is what the daemons were told it is: the check would otherwise hold of anything. */
async function checkRoot(folder: string, config: ImageConfig): Promise<void> {
  const write = [config.Entrypoint[0] ?? '', '-e', "fs.writeFileSync('/app/dist/src/main.js', '')"]
  for (const { as, code } of [
    { as: { uid: 0, gid: 0, readOnly: true }, code: 'EROFS' },
    { as: { uid: 12345, gid: 0, readOnly: false }, code: 'EACCES' },
  ]) {
    const child = start(folder, config, as, write)
    await child.waitForLine((line) => (line.includes(code) ? line : undefined))
    assert.equal(await child.exited, 1)
  }
}

// The whole --------------------------------------------------------------------------------------------------------------------

const MONITOR = [
  ...['monitor', '--service1=frontend', '--service2=cartservice'],
  '--training-data-file=/app/training/frontend-cartservice_training.json',
]
const INCIDENT = ['incident', '--pair=frontend:cartservice']

async function checkImage(program: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-image-'))
  const buildah = buildahIn(program, folder)
  const startMs = performance.now()
  const say = (text: string): void =>
    console.log(`${((performance.now() - startMs) / 1000).toFixed(1).padStart(5)} s  ${text}`)
  const cleanUp = (): void => {
    for (const pid of [...containers].map(pidIn)) if (pid !== undefined) process.kill(pid, 'SIGKILL')
    killChildren()
    buildah('umount', '--all')
    buildah('rm', '--all')
    rmSync(folder, { recursive: true })
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(1))
  process.once('exit', cleanUp)

  makeBase(buildah)
  say(`a base with node ${process.version}`)
  build(buildah, folder)
  say('built')

  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { readonly version: string }
  const config = configOf(buildah)
  const { User, Entrypoint, WorkingDir, ExposedPorts, Labels } = config
  assert.deepEqual(
    { User, Entrypoint, WorkingDir, ports: Object.keys(ExposedPorts).sort() },
    {
      User: '65532:65532',
      Entrypoint: ['/usr/local/bin/node', '--single-threaded-gc', '/app/dist/src/main.js'],
      WorkingDir: '/app',
      ports: ['8080/tcp', '8083/tcp'],
    },
  )
  assert.equal(Labels['org.opencontainers.image.version'], version)
  const { folder: root } = mounted(buildah, IMAGE)
  const entries = entriesOf(root)
  checkFiles(entries)
  say(`${entries.length} files and folders, root's, written by nobody: node, its libraries, meshfever`)
  say(checkSize(entries))
  say(`${checkSbom(join(root, 'app'), folder)} packages, all of production: ${relative(process.cwd(), SBOM_FILE)}`)

  prepare(root)
  await checkRoot(root, config)
  const told = start(root, config, { uid: 65532, gid: 65532, readOnly: true }, [...Entrypoint, '--version'])
  assert.equal(await told.waitForLine((line) => line), version)
  const native = "console.log(typeof require('/app/node_modules/@resvg/resvg-js').Resvg)"
  const loaded = start(root, config, { uid: 65532, gid: 65532, readOnly: true }, [Entrypoint[0] ?? '', '-e', native])
  assert.equal(await loaded.waitForLine((line) => line), 'function', 'the native module finds its libraries')
  const prometheus = await startPrometheus({
    binary: await findPrometheus(runtime),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [],
  })
  // A name: whoever finds it reads /etc/hosts, without a shell or a resolver in the image.
  const daemon = { folder: root, config, prometheusUrl: prometheus.url.replace('127.0.0.1', 'localhost') }
  say(await checkDaemon({ ...daemon, args: MONITOR, as: { uid: 12345, gid: 0, readOnly: true } }))
  say(
    await checkDaemon({ ...daemon, args: INCIDENT, as: { uid: randomInt(100_000, 2 ** 31), gid: 0, readOnly: true } }),
  )
  const before = entriesOf(root).map(({ path, size, mtimeMs, ctimeMs }) => ({ path, size, mtimeMs, ctimeMs }))
  say(await checkDaemon({ ...daemon, args: MONITOR, as: { uid: 0, gid: 0, readOnly: false } }))
  await prometheus.child.stop()
  const after = entriesOf(root).map(({ path, size, mtimeMs, ctimeMs }) => ({ path, size, mtimeMs, ctimeMs }))
  assert.deepEqual(after, before, 'root, who could, wrote nothing')
  say('and wrote nothing')
}

const found = await findBuildah().catch((error: unknown) => {
  if (!(error instanceof StartError)) throw error
  console.error(`${error.message}: the image was not checked`)
  if (process.env['CI'] !== undefined) process.exitCode = 1
  return undefined
})
if (found !== undefined) await checkImage(found)
