import { appendFileSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { type Child, listeningUrl, logged, startChild } from '../../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../../src/testbed/prometheus-server.js'
import { fakeRuntime } from './fake-runtime.js'
import { packageRoot } from './package-root.js'
import { PROGRAM } from './program.js'
import { temporaryFolder } from './temporary-folder.js'

/** A series of an answer; an instant answer has one value. */
export interface AnsweredSeries {
  readonly metric: Readonly<Record<string, string>>
  /** Time in unix seconds, value as Prometheus writes it. */
  readonly values: readonly (readonly [number, string])[]
}

export interface LiveMesh {
  readonly folder: string
  readonly prometheusUrl: string
  /** Starts a daemon that Prometheus scrapes each second. */
  readonly daemon: (args: readonly string[]) => Promise<void>
  /** An instant query. @throws when Prometheus refuses it */
  readonly ask: (query: string, timeSeconds?: number) => Promise<readonly AnsweredSeries[]>
}

const PATIENCE_MS = 90_000

/** Polls until there is something; what is expected to take long is no reason to fail early. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const untilMs = performance.now() + PATIENCE_MS
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > untilMs) throw new Error(`${what}: not within ${PATIENCE_MS / 1000} s`)
    await delay(200)
  }
}

/**
 * Online Boutique in small and a real Prometheus that scrapes it each second, gone when the test ends.
 *
 * @param options.fault - a file of k8s/faults that is in force from the start
 * @param options.rules - the text of a Prometheus rule file
 */
export async function startLiveMesh(
  t: TestContext,
  { fault, rules }: { readonly fault?: string; readonly rules?: string },
): Promise<LiveMesh> {
  const folder = temporaryFolder(t)
  const children: Child[] = []
  t.after(() => Promise.allSettled(children.reverse().map((child) => child.stop())))
  const meshfever = (args: readonly string[]): Child => {
    const environment = { PATH: process.env['PATH'] ?? '' }
    const child = startChild({
      name: args[0] ?? '',
      command: process.execPath,
      args: [PROGRAM, ...args],
      environment,
    })
    children.push(child)
    return child
  }

  const [faults, sidecars, daemons] = ['faults', 'sidecars.json', 'daemons.json'].map((name) => join(folder, name))
  mkdirSync(faults!)
  if (fault !== undefined) copyFileSync(join(packageRoot(), 'k8s/faults', fault), join(faults!, fault))
  writeTargets(daemons!, [])
  const testbed = meshfever([
    ...['testbed', '--topology', 'online-boutique', '--seed', '7', '--users', '20'],
    ...['--wait-seconds', '0.5-1', '--spawn-rate', '400', '--faults-dir', faults!, '--file-sd', sidecars!],
  ])
  await testbed.waitForLine((line) => logged(line, 'testbed started'))

  const runtime = fakeRuntime([])
  const program = { ...runtime.program, environment: process.env, isRoot: process.getuid?.() === 0 }
  const prometheusFolder = join(folder, 'prometheus')
  const { url: prometheusUrl, child } = await startPrometheus({
    binary: await findPrometheus({ ...runtime, program }),
    folder: prometheusFolder,
    scrapeIntervalSeconds: 1,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: sidecars! },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemons! },
    ],
  })
  children.push(child)
  if (rules !== undefined) {
    const file = join(folder, 'rules.yaml')
    writeFileSync(file, rules)
    appendFileSync(join(prometheusFolder, 'prometheus.yml'), `rule_files: [${JSON.stringify(file)}]\n`)
    child.signal('SIGHUP')
  }

  const targets: { readonly targets: readonly string[] }[] = []
  return {
    folder,
    prometheusUrl,
    daemon: async (args) => {
      const url = await meshfever([
        ...args,
        ...['--prometheus-url', prometheusUrl, '--poll-interval-seconds', '1', '--log-format', 'json'],
        ...['--prometheus-port', '0', '--listen-address', '127.0.0.1'],
      ]).waitForLine(listeningUrl)
      targets.push({ targets: [new URL(url).host] })
      writeTargets(daemons!, targets)
    },
    ask: async (query, timeSeconds) => {
      const body = new URLSearchParams({ query, ...(timeSeconds === undefined ? {} : { time: String(timeSeconds) }) })
      const response = await fetch(`${prometheusUrl}/api/v1/query`, { method: 'POST', body })
      const answer = (await response.json()) as {
        readonly status: string
        readonly error?: string
        readonly data?: {
          readonly result: readonly (Omit<AnsweredSeries, 'values'> & {
            readonly value?: readonly [number, string]
            readonly values?: readonly (readonly [number, string])[]
          })[]
        }
      }
      if (answer.data === undefined) throw new Error(`Prometheus refused ${query}: ${answer.error ?? answer.status}`)
      return answer.data.result.map(({ metric, value, values }) => ({
        metric,
        values: values ?? (value === undefined ? [] : [value]),
      }))
    },
  }
}
