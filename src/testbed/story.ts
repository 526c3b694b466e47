import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { StartError } from '../core/errors.js'
import { type Pair, pairName } from '../core/pair.js'
import { queryRange } from '../io/prometheus.js'
import { EVALUATED, INCIDENT, NO_INCIDENT, TRANSITION } from '../io/log.js'
import type { Runtime } from '../io/runtime.js'
import { type Child, listeningUrl, logged, startChild } from './child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from './prometheus-server.js'
import { PICTURE_QUERY, type Scene, storyPicture } from './story-picture.js'

/** Shortened for a story of a few minutes; on a cluster: 15 s, 1m, 5 s. */
const SCRAPE_SECONDS = 1
const WINDOW_SECONDS = 15
const POLL_SECONDS = 2.5

const TRAINING_SECONDS = 36
const NORMAL_SECONDS = 10
const SURGE_USERS = 400
const SURGE_SECONDS = 2

/** How long the story waits for what should happen before it says that it did not. */
const PATIENCE_SECONDS = 90

/** Given to the incident daemon, drawn into the picture. */
const INCIDENT_THRESHOLD = 10
const CLEAR_THRESHOLD = 5

const PAIRS = [
  { source: 'frontend', destination: 'cartservice', fault: 'frontend-cartservice-delay.yaml' },
  { source: 'checkoutservice', destination: 'paymentservice', fault: 'checkoutservice-paymentservice-delay.yaml' },
] as const

const FAULTS = fileURLToPath(new URL('../../../k8s/faults/', import.meta.url))

/** One line of the closing table. */
interface Chapter {
  readonly happening: string
  readonly expected: string
  readonly seen: string
  readonly agrees: boolean
  /** Seconds the chapter took; null where time is no matter. */
  readonly seconds: number | null
}

export interface StoryOptions {
  /** Stay up at the end, until the signal aborts. */
  readonly keep: boolean
  /** Where to save a picture of it all, as SVG. */
  readonly picture: string | undefined
}

type Event = Readonly<Record<string, unknown>>

/**
 * Starts the testbed, a Prometheus and the daemons, each as a process of its own, and tells what they do while load and
 * faults come and go.
 *
 * @returns whether everything happened as expected
 * @throws {StartError} when something cannot be started, or ended by itself
 */
export async function tellStory(runtime: Runtime, { keep, picture }: StoryOptions): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-demo-'))
  const children: Child[] = []
  try {
    return await tell(runtime, { keep, picture, folder, children })
  } finally {
    await Promise.allSettled(children.reverse().map((child) => child.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
}

async function tell(
  runtime: Runtime,
  { keep, picture, folder, children }: StoryOptions & { readonly folder: string; readonly children: Child[] },
): Promise<boolean> {
  const { clock, signal, stdout, program } = runtime
  const startMs = clock.monotonicMs()
  const say = (text: string): Promise<void> => {
    const seconds = Math.round((clock.monotonicMs() - startMs) / 1000)
    const time = `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`
    return stdout.write(`${time}  ${text}\n`)
  }
  const wait = async (seconds: number): Promise<void> => {
    await clock.sleep(seconds * 1000, signal)
    if (signal.aborted) throw new Interrupted()
  }
  const started = (child: Child): Child => {
    children.push(child)
    return child
  }
  const meshfever = (name: string, args: readonly string[]): Child =>
    started(
      startChild({
        name,
        command: program.nodePath,
        args: [program.scriptPath, ...args],
        environment: program.environment,
      }),
    )

  const files = {
    sidecars: join(folder, 'sidecars.json'),
    daemons: join(folder, 'daemons.json'),
    faults: join(folder, 'faults'),
    load: join(folder, 'extra-users'),
  }
  mkdirSync(files.faults)
  writeFileSync(files.load, '0\n')
  writeTargets(files.daemons, [])

  const binary = await findPrometheus(runtime)
  await say('Starting Online Boutique in small: ten services with sidecars, and 40 users who shop.')
  const testbed = meshfever('testbed', [
    'testbed',
    ...['--topology', 'online-boutique', '--seed', '7'],
    ...['--users', '40', '--wait-seconds', '0.5-1.5', '--spawn-rate', '400'],
    ...['--faults-dir', files.faults, '--load-file', files.load, '--file-sd', files.sidecars],
  ])
  const frontendUrl = await testbed.waitForLine((line) => logged(line, 'testbed started')?.['frontend'])
  const prometheus = await startPrometheus({
    binary,
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: SCRAPE_SECONDS,
    jobs: [
      { name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile: files.sidecars },
      { name: 'meshfever', metricsPath: '/metrics', targetsFile: files.daemons },
    ],
  })
  started(prometheus.child)
  await say(`Prometheus scrapes the sidecars each second: ${prometheus.url}`)

  await say(`Learning what is normal: ${TRAINING_SECONDS} s of traffic.`)
  // The first window must be full, and discovery takes Prometheus some seconds.
  await wait(WINDOW_SECONDS + 6 + TRAINING_SECONDS)
  const recordings = PAIRS.map(({ source, destination }) => join(folder, `${source}-${destination}.json`))
  await Promise.all(
    PAIRS.map(async (pair, i) => {
      const record = meshfever(`record ${pairName(pair)}`, [
        'record',
        ...serviceFlags(pair),
        ...['--prometheus-url', prometheus.url, '--query-window', `${WINDOW_SECONDS}s`],
        ...['--range', `${TRAINING_SECONDS}s`, '--step-seconds', '1', '--output', recordings[i] ?? ''],
      ])
      await record.waitForLine((line) => logged(line, 'recorded'))
      await record.exited
    }),
  )
  await say(`Recorded ${PAIRS.map(pairName).join(' and ')} with \`meshfever record\`.`)

  const events: Event[] = []
  const follow = (child: Child): void => {
    void child
      .waitForLine((line) => {
        if (line.startsWith('{')) events.push(JSON.parse(line) as Event)
        return undefined
      })
      .catch(() => undefined)
  }
  const daemonFlags = [
    ...['--prometheus-url', prometheus.url, '--poll-interval-seconds', String(POLL_SECONDS)],
    ...['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json'],
  ]
  const monitors = PAIRS.map((pair, i) =>
    meshfever(`monitor ${pairName(pair)}`, [
      'monitor',
      ...serviceFlags(pair),
      ...['--training-data-file', recordings[i] ?? '', '--query-window', `${WINDOW_SECONDS}s`],
      ...daemonFlags,
    ]),
  )
  const incident = meshfever('incident', [
    'incident',
    ...PAIRS.flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`]),
    ...['--incident-threshold', String(INCIDENT_THRESHOLD), '--clear-threshold', String(CLEAR_THRESHOLD)],
    ...['--stale-after-seconds', '20'],
    ...daemonFlags,
  ])
  const daemons = [...monitors, incident]
  const urls = await Promise.all(daemons.map((daemon) => daemon.waitForLine(listeningUrl)))
  daemons.forEach(follow)
  writeTargets(
    files.daemons,
    urls.map((url) => ({ targets: [new URL(url).host] })),
  )
  await say(`Started a monitor for each pair and the incident daemon, polling each ${POLL_SECONDS} s.`)
  for (const { msg } of events) {
    if (typeof msg === 'string' && msg.startsWith('timing contract: ')) await say(`  ${msg}`)
  }

  /** Waits for what the daemons log; null when it does not come in time. */
  const until = async (seen: () => boolean): Promise<number | null> => {
    const fromMs = clock.monotonicMs()
    const elapsed = (): number => (clock.monotonicMs() - fromMs) / 1000
    while (!seen()) {
      if (elapsed() > PATIENCE_SECONDS) return null
      const ended = children.find((child) => daemons.includes(child) && child.hasEnded())
      if (ended !== undefined) throw new StartError(`${ended.name} ended in the middle of the story`)
      await wait(0.2)
    }
    return elapsed()
  }
  const count = (test: (event: Event) => boolean): number => events.filter(test).length
  const opened = (): number => count(({ msg, transition }) => msg === TRANSITION && transition === 'opened')
  const anomalies = (): number => count(({ msg, verdict }) => msg === EVALUATED && verdict === 'anomalous')
  const reached = (severity: number): boolean =>
    events.some(({ msg, severity: is }) => msg === TRANSITION && is === severity)
  const lastStatus = (): Event | undefined =>
    events.findLast(({ msg }) => msg === NO_INCIDENT || String(msg).startsWith(INCIDENT))
  const quiet = (): boolean => {
    const status = lastStatus()
    return status?.['temperature'] === 0 && status['unknown'] === undefined && monitorsOk(events)
  }

  const chapters: Chapter[] = []
  const scenes: Scene[] = []
  const scene = (title: string): void => {
    const startSeconds = clock.nowMs() / 1000
    const last = scenes.at(-1)
    if (last !== undefined) scenes[scenes.length - 1] = { ...last, endSeconds: startSeconds }
    scenes.push({ title, startSeconds, endSeconds: startSeconds })
  }
  const close = async (chapter: Chapter): Promise<void> => {
    chapters.push(chapter)
    await say(`${chapter.agrees ? '->' : '-> NOT AS EXPECTED:'} ${chapter.seen}`)
  }

  if ((await until(quiet)) === null) throw new StartError('the incident daemon heard nothing of the pairs')
  scene('normal')
  await say('Normal traffic. Nothing should happen.')
  await wait(NORMAL_SECONDS)
  await close({
    happening: 'normal traffic',
    expected: 'no incident',
    seen: opened() === 0 ? 'no incident' : 'an incident',
    agrees: opened() === 0,
    seconds: null,
  })

  await say(
    `A surge: ${SURGE_USERS} more users, all at once, for ${SURGE_SECONDS} s. A transient, nobody should be paged.`,
  )
  scene(`+${SURGE_USERS} users for ${SURGE_SECONDS} s`)
  const anomaliesBefore = anomalies()
  writeFileSync(files.load, `${SURGE_USERS}\n`)
  await wait(SURGE_SECONDS)
  writeFileSync(files.load, '0\n')
  await until(() => anomalies() > anomaliesBefore)
  const overSeconds = await until(quiet)
  const surgeAnomalies = anomalies() - anomaliesBefore
  await close({
    happening: `transient of ${SURGE_SECONDS} s`,
    expected: 'anomalies, no incident',
    seen: `${surgeAnomalies === 0 ? 'no anomalies' : `${surgeAnomalies} anomalies`}, ${opened() === 0 ? 'no incident' : 'an incident'}`,
    agrees: surgeAnomalies > 0 && opened() === 0 && overSeconds !== null,
    seconds: null,
  })

  const inject = async (fault: string): Promise<void> => {
    await say(`kubectl apply -f k8s/faults/${fault}: 0.2 s more for each request.`)
    copyFileSync(join(FAULTS, fault), join(files.faults, fault))
  }
  scene('delay on one pair')
  await inject(PAIRS[0].fault)
  const sev2Seconds = await until(() => reached(2))
  await close(happened('delay on one pair', 'Sev 2', sev2Seconds))

  scene('delay on both')
  await inject(PAIRS[1].fault)
  const sev1Seconds = await until(() => reached(1))
  await close(happened('delay on both pairs', 'Sev 1', sev1Seconds))

  scene('faults removed')
  await say('kubectl delete: both faults are gone.')
  for (const { fault } of PAIRS) rmSync(join(files.faults, fault))
  const resolvedSeconds = await until(() =>
    events.some(({ msg, transition }) => msg === TRANSITION && transition === 'resolved'),
  )
  await close(happened('faults removed', 'resolved', resolvedSeconds))

  if (picture !== undefined) {
    await wait(2 * POLL_SECONDS) // the end of the incident belongs to the picture
    scene('end')
    await savePicture(runtime, { prometheusUrl: prometheus.url, scenes: scenes.slice(0, -1), path: picture })
    await say(`Picture saved: ${picture}`)
  }
  await stdout.write(`\n${tableOf(chapters)}\n`)
  const asExpected = chapters.every(({ agrees }) => agrees) && opened() === 1
  await stdout.write(asExpected ? 'Everything happened as expected.\n' : 'Not everything happened as expected.\n')
  if (keep) {
    const addresses = [
      ['Prometheus', prometheus.url],
      ['shop', frontendUrl],
      ...daemons.map((daemon, i) => [daemon.name, `${urls[i] ?? ''}/ and /metrics`]),
      ['faults', `copy a VirtualService into ${files.faults}`],
    ]
    for (const [name, address] of addresses) await stdout.write(`  ${String(name).padEnd(44)}${String(address)}\n`)
    await stdout.write('Staying up until Ctrl-C.\n')
    await clock.sleep(2 ** 31 - 1, signal)
  }
  return asExpected
}

async function savePicture(
  runtime: Runtime,
  {
    prometheusUrl,
    scenes,
    path,
  }: { readonly prometheusUrl: string; readonly scenes: readonly Scene[]; readonly path: string },
): Promise<void> {
  const answer = await queryRange(runtime, {
    prometheusUrl,
    query: PICTURE_QUERY,
    startSeconds: scenes[0]?.startSeconds ?? 0,
    endSeconds: scenes.at(-1)?.endSeconds ?? 0,
    stepSeconds: 1,
    deadlineMs: 20_000,
  })
  if (answer.kind === 'failure') throw new StartError(`no picture: ${answer.detail}`)
  const svg = await storyPicture({
    matrix: answer.data,
    pairs: PAIRS,
    scenes,
    incidentThreshold: INCIDENT_THRESHOLD,
    clearThreshold: CLEAR_THRESHOLD,
  })
  writeFileSync(path, svg)
}

class Interrupted extends StartError {
  constructor() {
    super('stopped before the end of the story')
  }
}

function serviceFlags({ source, destination }: Pair): readonly string[] {
  return ['--service1', source, '--service2', destination]
}

/** Whether the newest evaluation of each pair is ok. */
function monitorsOk(events: readonly Event[]): boolean {
  return PAIRS.every(({ source, destination }) => {
    const newest = events.findLast(
      (event) => event['msg'] === EVALUATED && event['source'] === source && event['destination'] === destination,
    )
    return newest?.['verdict'] === 'ok'
  })
}

function happened(happening: string, expected: string, seconds: number | null): Chapter {
  return {
    happening,
    expected,
    seen: seconds === null ? `nothing within ${PATIENCE_SECONDS} s` : expected,
    agrees: seconds !== null,
    seconds,
  }
}

function tableOf(chapters: readonly Chapter[]): string {
  const rows = [
    ['what happened', 'expected', 'seen', 'after'],
    ...chapters.map(({ happening, expected, seen, seconds }) => [
      happening,
      expected,
      seen,
      seconds === null ? '' : `${seconds.toFixed(0)} s`,
    ]),
  ]
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
