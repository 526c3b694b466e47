import { StartError } from '../core/errors.js'
import { runDaemon } from '../io/daemon.js'
import { exchange } from '../io/exchange.js'
import type { Runtime } from '../io/runtime.js'
import { type Child, startChild } from '../testbed/child-process.js'
import type { KubernetesSettings } from './experiment-file.js'
import type { Kubectl } from './kubernetes-kubectl.js'
import type { KubernetesLimits } from './kubernetes-limits.js'

/** Prometheus's Service, within reach of this machine. */
export interface PortForward {
  /** http://127.0.0.1:PORT, the same as long as it lives. */
  readonly url: string
  /** Rejects when it broke and cannot be had back. */
  readonly broken: Promise<never>
  readonly close: () => Promise<void>
}

const RETRY_MS = 1_000

/** Requests in a row that may get no answer. */
const TOLERATED_FAILURES = 2

/**
 * `kubectl port-forward`, started again on the same port whenever it ends: it does with the pod that it leads to.
 *
 * @throws {StartError} when it does not come up
 */
export async function forwardPrometheus(
  runtime: Runtime,
  kubectl: Kubectl,
  options: { readonly prometheus: KubernetesSettings['prometheus']; readonly limits: KubernetesLimits },
): Promise<PortForward> {
  const { clock, logger, program, signal } = runtime
  const { prometheus, limits } = options
  const { namespace, service, port } = prometheus
  const closing = new AbortController()

  const open = async (localPort: number | null): Promise<{ readonly child: Child; readonly localPort: number }> => {
    const ports = `${localPort ?? ''}:${port}`
    const args = ['port-forward', '--namespace', namespace, '--address', '127.0.0.1', `service/${service}`, ports]
    const child = startChild({
      name: kubectl.inWords(args),
      command: kubectl.path,
      args: [...kubectl.contextArgs, ...args],
      environment: program.environment,
      ownGroup: true,
    })
    const stop = AbortSignal.any([signal, closing.signal])
    const over = new AbortController()
    const limit = clock.sleep(limits.forwardMs, AbortSignal.any([stop, over.signal])).then(async () => {
      if (over.signal.aborted) return
      await child.stop()
    })
    try {
      const found = await child.waitForLine((line) => /^Forwarding from 127\.0\.0\.1:(\d+) -> /.exec(line)?.[1])
      return { child, localPort: Number(found) }
    } finally {
      over.abort()
      await limit
    }
  }

  const first = await open(null)
  let child: Child | null = first.child
  const { localPort } = first
  logger.info({ prometheus: `${namespace}/${service}`, port: localPort }, 'port-forward opened')

  const url = `http://127.0.0.1:${localPort}`
  const over = (): boolean => closing.signal.aborted || signal.aborted

  const reopen = async (): Promise<void> => {
    const untilMs = clock.monotonicMs() + limits.forwardMs
    while (!over()) {
      await clock.sleep(RETRY_MS, closing.signal)
      try {
        child = (await open(localPort)).child
        // Closed just now: nobody else knows of this one.
        if (closing.signal.aborted) await child.stop()
        logger.info({ port: localPort }, 'port-forward opened again')
        return
      } catch (error) {
        if (clock.monotonicMs() < untilMs) continue
        throw new StartError(
          `the port-forward of Prometheus broke and was not to be had again within ${limits.forwardMs / 1000} s: ${(error as Error).message}`,
          { cause: error },
        )
      }
    }
  }
  const watch = async (): Promise<never> => {
    while (!over()) {
      const code = await child?.exited
      child = null
      if (over()) break
      logger.warn({ port: localPort, exitCode: code }, 'port-forward ended')
      await reopen()
    }
    return new Promise<never>(() => undefined)
  }
  let failures = 0
  const probe = async (): Promise<void> => {
    if (child === null || over()) return
    const { kind } = await exchange(runtime, limits.forwardMs, { method: 'get', url: `${url}/-/ready` })
    failures = kind === 'failure' ? failures + 1 : 0
    if (failures < TOLERATED_FAILURES || over()) return
    failures = 0
    // It holds its port and leads nowhere: when it has ended, it is started again.
    await child.stop()
  }
  const probing = runDaemon({ intervalMs: limits.watchMs, clock, signal: closing.signal, tick: probe })
  const broken = watch()
  broken.catch(() => undefined) // whoever waits hears of it
  return {
    url,
    broken,
    close: async () => {
      closing.abort()
      await child?.stop()
      await probing
    },
  }
}
