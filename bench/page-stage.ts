import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { type Browser, chromium, type Page } from 'playwright-core'
import { pino } from 'pino'

import type { Program } from '../src/io/runtime.js'
import type { PageState } from '../src/page/page-state.js'
import { type Child, listeningUrl, logged, startChild } from '../src/testbed/child-process.js'
import { findOrInstall } from '../src/testbed/installed-program.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'

const PROGRAM = fileURLToPath(new URL('../src/main.js', import.meta.url))
const FAULTS = fileURLToPath(new URL('../../k8s/faults/', import.meta.url))

const WINDOW_SECONDS = 6
const TRAINING_SECONDS = 34

/** The surge of the processes that start is over when so many polls in a row were ok. */
const CALM_POLLS = 5

const PAIRS = [
  { source: 'frontend', destination: 'cartservice' },
  { source: 'checkoutservice', destination: 'paymentservice' },
] as const

/** The surroundings of this process. */
export const program: Program = {
  version: '',
  nodeVersion: process.version,
  nodePath: process.execPath,
  scriptPath: PROGRAM,
  environment: process.env,
  isRoot: process.getuid?.() === 0,
}

/** A small mesh, a Prometheus and the daemons, for looking at their pages. */
export interface Stage {
  /** Of the pair that is slowed down first. */
  readonly monitorUrl: string
  readonly incidentUrl: string
  /** Slows the first or the second pair down. */
  slow(pair: 0 | 1): void
  mend(): void
  killPrometheus(): Promise<void>
  stopMonitor(): Promise<void>
  stop(): Promise<void>
}

/** @throws {StartError} when Prometheus is not there and cannot be installed */
export async function startStage(): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-page-'))
  const children: Child[] = []
  const stop = async (): Promise<void> => {
    await Promise.allSettled(children.reverse().map((child) => child.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    return { ...(await setUp(folder, children)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function setUp(folder: string, children: Child[]): Promise<Omit<Stage, 'stop'>> {
  const started = (child: Child): Child => {
    children.push(child)
    return child
  }
  const meshfever = (args: readonly string[]): Child =>
    started(startChild({ name: args[0] ?? '', command: process.execPath, args: [PROGRAM, ...args] }))
  const [faults, sidecars, daemons] = [join(folder, 'faults'), join(folder, 'sidecars'), join(folder, 'daemons')].map(
    (path) => `${path}.json`,
  ) as [string, string, string]
  mkdirSync(faults)
  writeTargets(daemons, [])
  const testbed = meshfever([
    ...['testbed', '--topology', 'online-boutique', '--seed', '7', '--users', '40'],
    ...['--wait-seconds', '0.5-1.5', '--spawn-rate', '400', '--faults-dir', faults, '--file-sd', sidecars],
  ])
  await testbed.waitForLine((line) => logged(line, 'testbed started'))
  const prometheus = await startPrometheus({
    binary: await findPrometheus({ program, logger: pino({ level: 'silent' }) }),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: sidecars },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemons },
    ],
  })
  started(prometheus.child)
  // Discovery takes some seconds, and the first window must be full.
  await delay((6 + WINDOW_SECONDS + TRAINING_SECONDS) * 1000)
  const window = ['--query-window', `${WINDOW_SECONDS}s`, '--prometheus-url', prometheus.url]
  const recordings = PAIRS.map(({ destination }) => join(folder, `${destination}_training.json`))
  const services = PAIRS.map(({ source, destination }) => ['--service1', source, '--service2', destination])
  await Promise.all(
    recordings.map(async (output, i) => {
      const range = ['--range', `${TRAINING_SECONDS}s`, '--step-seconds', '1', '--output', output]
      const code = await meshfever(['record', ...(services[i] ?? []), ...window, ...range]).exited
      if (code !== 0) throw new Error(`record ended with ${code ?? 'a signal'}`)
    }),
  )
  const serve = [
    '--poll-interval-seconds',
    '1',
    '--prometheus-port',
    '0',
    '--listen-address',
    '127.0.0.1',
    '--log-format',
    'json',
  ]
  // What starts beside it slows a small machine down by more than a recording of half a minute has seen.
  const leniently = ['--min-deviation-ms', '40']
  const monitors = recordings.map((file, i) =>
    meshfever(['monitor', ...(services[i] ?? []), '--training-data-file', file, ...window, ...leniently, ...serve]),
  )
  const incident = meshfever([
    'incident',
    ...PAIRS.flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`]),
    ...['--stale-after-seconds', '20', ...window, ...serve],
  ])
  const urls = await Promise.all([...monitors, incident].map((daemon) => daemon.waitForLine(listeningUrl)))
  // An incident of the start is no part of the play: Prometheus hears of the monitors when they are calm.
  await Promise.all(urls.slice(0, -1).map(calm))
  writeTargets(
    daemons,
    urls.map((url) => ({ targets: [new URL(url).host] })),
  )
  const faultFile = (pair: 0 | 1): string => `${PAIRS[pair].source}-${PAIRS[pair].destination}-delay.yaml`
  return {
    monitorUrl: urls[0] ?? '',
    incidentUrl: urls[2] ?? '',
    slow: (pair) => copyFileSync(join(FAULTS, faultFile(pair)), join(faults, faultFile(pair))),
    mend: () => {
      for (const pair of [0, 1] as const) rmSync(join(faults, faultFile(pair)), { force: true })
    },
    killPrometheus: async () => {
      prometheus.child.signal('SIGKILL')
      await prometheus.child.exited
    },
    stopMonitor: async () => {
      await monitors[0]?.stop()
    },
  }
}

/** Resolves when the last polls of a monitor were all ok. */
async function calm(url: string): Promise<void> {
  for (;;) {
    const { view } = (await (await fetch(`${url}/api/state`)).json()) as PageState
    const verdicts = view?.kind === 'monitor' ? view.history.verdicts.slice(-CALM_POLLS) : []
    if (verdicts.length === CALM_POLLS && verdicts.every((verdict) => verdict === 'ok')) return
    await delay(500)
  }
}

/** A state of the world, how it comes about, and what the pages then say in large. */
export interface Scene {
  readonly name: 'normal' | 'sev2' | 'sev1' | 'resolved' | 'prometheus-down'
  readonly act: (stage: Stage) => void | Promise<void>
  readonly monitor: string
  readonly incident: string
}

export const SCENES: readonly Scene[] = [
  { name: 'normal', act: () => undefined, monitor: 'OK', incident: 'NO INCIDENT' },
  { name: 'sev2', act: (stage) => stage.slow(0), monitor: 'ANOMALOUS', incident: 'SEV 2' },
  { name: 'sev1', act: (stage) => stage.slow(1), monitor: 'ANOMALOUS', incident: 'SEV 1' },
  { name: 'resolved', act: (stage) => stage.mend(), monitor: 'OK', incident: 'NO INCIDENT' },
  { name: 'prometheus-down', act: (stage) => stage.killPrometheus(), monitor: 'NO DATA', incident: 'NO DATA' },
]

const PATIENCE_MS = 90_000

/** Waits until a page says so in large. */
export async function says(page: Page, word: string): Promise<void> {
  await page.locator('.status-word').getByText(word, { exact: true }).waitFor({ timeout: PATIENCE_MS })
}

/** Chromium's program. @throws {StartError} when there is none and it cannot be installed */
export function findChromium(runtime: Parameters<typeof findOrInstall>[0]): Promise<string> {
  return findOrInstall(runtime, {
    title: 'Chromium',
    names: ['chromium', 'chromium-browser', 'google-chrome'],
    variable: 'CHROMIUM',
    debianPackage: 'chromium',
    howTo: 'Chromium is needed and was not found: apt-get install chromium (Debian), or name one by $CHROMIUM',
  })
}

/** A real Chromium without a window. @throws {StartError} when there is none and it cannot be installed */
export async function startBrowser(): Promise<Browser> {
  const executablePath = await findChromium({ program, logger: pino({ level: 'silent' }) })
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}
