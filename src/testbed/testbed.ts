import { StartError, UsageError } from '../core/errors.js'
import { writeAtomically } from '../io/atomic-file.js'
import { listen, text } from '../io/http-server.js'
import type { Runtime } from '../io/runtime.js'
import { applyOrWarn, createFaults, type Faults } from './faults.js'
import { parseLoadProfile } from './load-profile.js'
import { type Load, type LoadProfile, type LoadReport, startLoad } from './load.js'
import { createPauses } from './pauses.js'
import { seedFor, seededRandom } from './random.js'
import { startService } from './service.js'
import { type Sidecar, startSidecar } from './sidecar.js'
import type { Topology } from './topology.js'
import { qualifiedHost } from './virtual-service.js'
import { watchDirectory, watchFile } from './watch.js'

export interface TestbedConfig {
  readonly topology: Topology
  readonly load: LoadProfile
  readonly seed: number
  /** 0 lets the system choose. */
  readonly controlPort: number
  /** Every VirtualService file in it is in force. */
  readonly faultsDirectory?: string | undefined
  /** Holds the number of users to add to the shape, or a whole load profile that takes the shape's place. */
  readonly loadFile?: string | undefined
  /** Where to write the sidecars' addresses for Prometheus's file_sd_configs. */
  readonly fileSd?: string | undefined
  /** Called each second. */
  readonly onReport?: ((report: LoadReport) => void) | undefined
}

/** What the log says of the load file. */
export const LOAD_CHANGED = 'load changed'
export const LOAD_REFUSED = 'load file refused'

/** As Prometheus's http_sd_configs and file_sd_configs read it. */
export interface Target {
  readonly targets: readonly string[]
  readonly labels: { readonly app: string }
}

export interface Testbed {
  readonly targets: readonly Target[]
  readonly frontendUrl: string
  readonly controlUrl: string
  readonly users: () => LoadReport
  /** Users on top of the shape's, from now on. */
  readonly setExtraUsers: (users: number) => void
  /** As `kubectl apply -f`. @throws {UsageError} when the manifest is refused */
  readonly applyFaults: (text: string, name: string) => void
  /** As `kubectl delete -f`. */
  readonly deleteFaults: (name: string) => void
  /** Ends everything that was started. Safe to call twice. */
  readonly close: () => Promise<void>
}

/**
 * Starts a mesh of HTTP services with sidecars, and the users who load it.
 *
 * @throws {StartError} when something cannot listen or be written; what had been started is ended
 * @throws {UsageError} when `faultsDirectory` is no directory
 */
export async function startTestbed(runtime: Runtime, config: TestbedConfig): Promise<Testbed> {
  /** What must be ended, in the order in which it was started. */
  const ends: End[] = []
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => (closing ??= endAll(ends))
  try {
    return await start(runtime, config, { ends, close })
  } catch (error) {
    await close()
    throw error
  }
}

type End = () => Promise<void> | void

interface Lifetime {
  readonly ends: End[]
  readonly close: () => Promise<void>
}

async function start({ clock, logger }: Runtime, config: TestbedConfig, { ends, close }: Lifetime): Promise<Testbed> {
  const { topology, seed } = config
  const { namespace } = topology
  const pauses = createPauses()
  const faults = createFaults({
    logger,
    namespace,
    knownHosts: topology.services.map(({ name }) => qualifiedHost(name, namespace)),
  })

  const ports = new Map<string, number>()
  const sidecars: { readonly app: string; readonly sidecar: Sidecar }[] = []
  for (const service of topology.services) {
    const sidecar = await startSidecar({
      service: service.name,
      namespace,
      clock,
      pauses,
      faults,
      random: seededRandom(seedFor(seed, `sidecar ${service.name}`)),
      portOf: (name) => ports.get(name),
    })
    ends.push(sidecar.close)
    sidecars.push({ app: service.name, sidecar })
    const random = seededRandom(seedFor(seed, `service ${service.name}`))
    const running = await startService({ service, sidecar, clock, pauses, random })
    ends.push(running.close)
    ports.set(service.name, running.port)
  }
  // Ended before the services, so that nobody wakes up to call one that is gone.
  ends.push(pauses.drop)

  const targets = sidecars.map(({ app, sidecar }) => ({ targets: [`127.0.0.1:${sidecar.port}`], labels: { app } }))
  const targetsJson = `${JSON.stringify(targets)}\n`
  if (config.fileSd !== undefined) writeAtomically(config.fileSd, targetsJson)
  const frontendPort = ports.get(topology.entry)
  if (frontendPort === undefined) throw new StartError(`the topology has no service ${topology.entry}`)

  const load = startLoad({
    clock,
    topology,
    port: frontendPort,
    profile: config.load,
    seed,
    onReport: config.onReport,
  })
  ends.push(load.close)

  if (config.faultsDirectory !== undefined) {
    const watch = watchFaults(config.faultsDirectory, faults, logger)
    ends.push(watch.close)
  }
  if (config.loadFile !== undefined) {
    const watch = watchLoad(config.loadFile, load, logger)
    ends.push(watch.close)
  }
  const json = (body: string): { status: number; contentType: string; body: string } => ({
    status: 200,
    contentType: 'application/json',
    body,
  })
  const control = await listen({
    address: '127.0.0.1',
    port: config.controlPort,
    routes: {
      '/targets': () => json(targetsJson),
      '/users': () => json(`${JSON.stringify(usersJson(load.report()))}\n`),
      '/healthz': () => text(200, 'ok\n'),
    },
  })
  ends.push(() => control.close(100))

  return {
    targets,
    frontendUrl: `http://127.0.0.1:${frontendPort}`,
    controlUrl: control.url,
    users: load.report,
    setExtraUsers: load.setExtraUsers,
    applyFaults: faults.apply,
    deleteFaults: faults.remove,
    close,
  }
}

/** All at once, last started first: the last user is gone only when the services have cut the connections. */
async function endAll(ends: readonly End[]): Promise<void> {
  await Promise.all([...ends].reverse().map(async (end) => end()))
}

function watchFaults(directory: string, faults: Faults, logger: Runtime['logger']): { readonly close: () => void } {
  return watchDirectory({ directory, what: '--faults-dir', accept: (name) => /\.ya?ml$/.test(name) }, (before, now) => {
    for (const file of before.keys()) if (!now.has(file)) faults.remove(file)
    for (const [file, content] of now) {
      if (before.get(file) !== content) applyOrWarn(faults, { text: content, file, logger })
    }
  })
}

/** A whole number is extra users, as is no file at all; a JSON object is a profile, which begins when it is read. */
function watchLoad(file: string, load: Load, logger: Runtime['logger']): { readonly close: () => void } {
  return watchFile(file, (content) => {
    const text = content?.trim() ?? '0'
    if (/^\d{1,6}$/.test(text)) {
      load.setExtraUsers(Number(text))
      logger.info({ file, extraUsers: Number(text) }, LOAD_CHANGED)
      return
    }
    try {
      load.setProfile(parseLoadProfile(JSON.parse(text), file))
      logger.info({ file, profile: JSON.parse(text) as unknown }, LOAD_CHANGED)
    } catch (error) {
      const reason = error instanceof UsageError ? error.message : 'a whole number of users or a load profile in JSON'
      logger.warn({ file, expected: reason, got: text.slice(0, 40) }, LOAD_REFUSED)
    }
  })
}

function usersJson(report: LoadReport): Readonly<Record<string, number>> {
  return {
    run_time_seconds: report.runSeconds,
    current_users: report.currentUsers,
    target_users: report.targetUsers,
    extra_users: report.extraUsers,
    requests: report.requests,
    failures: report.failures,
  }
}
