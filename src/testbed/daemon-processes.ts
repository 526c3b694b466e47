import { StartError } from '../core/errors.js'
import type { WatchedPair } from '../core/incident.js'
import { type Pair, pairName } from '../core/pair.js'
import { EVALUATED, INCIDENT, NO_INCIDENT, TRANSITION } from '../io/log.js'
import type { Program } from '../io/runtime.js'
import { type Child, type ChildOptions, eventOf, listeningUrl, type LogEvent, startChild } from './child-process.js'
import { writeTargets } from './prometheus-server.js'

/** Starts another of this program, under a name for messages. */
export type StartMeshfever = (name: string, args: readonly string[], onLine?: ChildOptions['onLine']) => Child

/** Variables that would set flags of ours are not handed on: what a child does is said by its flags alone. */
export function meshfeverStarter(
  { nodePath, scriptPath, environment }: Pick<Program, 'nodePath' | 'scriptPath' | 'environment'>,
  { ownGroup = false }: Pick<ChildOptions, 'ownGroup'> = {},
): StartMeshfever {
  const handedOn = Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('MESHFEVER_')))
  return (name, args, onLine) =>
    startChild({ name, command: nodePath, args: [scriptPath, ...args], environment: handedOn, ownGroup, onLine })
}

export interface DaemonsOptions {
  readonly start: StartMeshfever
  readonly pairs: readonly (WatchedPair & { readonly trainingFile: string })[]
  /** Where the pairs' latency is. */
  readonly latencyUrl: string
  /** Where what the monitors export is. */
  readonly gaugesUrl: string
  /** A Prometheus duration. */
  readonly queryWindow: string
  readonly pollIntervalSeconds: number
  readonly staleAfterSeconds: number
  /** Prometheus's list of what to scrape, in its file_sd form; the daemons are written into it. */
  readonly targetsFile: string
  /** More flags for each. */
  readonly monitorFlags: readonly string[]
  readonly incidentFlags: readonly string[]
  /** Told of each line that one logs, as it was logged. */
  readonly onLine?: (name: string, line: string) => void
}

/** A monitor for each pair, and the incident daemon, as processes of their own. */
export interface Daemons {
  readonly children: readonly Child[]
  /** Where each serves, in the order of the children. */
  readonly urls: readonly string[]
  /** All that they logged so far. */
  readonly events: readonly LogEvent[]
}

/**
 * Resolves when all of them serve.
 *
 * @param started - told of each child as it starts, so that it can be ended whatever happens
 * @throws {StartError} when one ends before it serves
 */
export async function startDaemons(options: DaemonsOptions, started: (child: Child) => void): Promise<Daemons> {
  const { start, pairs, queryWindow, onLine } = options
  const events: LogEvent[] = []
  const launch = (name: string, args: readonly string[]): Child => {
    const child = start(
      name,
      [
        ...args,
        ...['--poll-interval-seconds', String(options.pollIntervalSeconds)],
        ...['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json'],
      ],
      (line) => {
        onLine?.(name, line)
        const event = eventOf(line)
        if (event !== undefined) events.push(event)
      },
    )
    started(child)
    return child
  }
  const monitors = pairs.map((pair) =>
    launch(`monitor ${pairName(pair)}`, [
      'monitor',
      ...serviceFlags(pair),
      ...['--training-data-file', pair.trainingFile, '--prometheus-url', options.latencyUrl],
      ...['--query-window', queryWindow],
      ...options.monitorFlags,
    ]),
  )
  const incident = launch('incident', [
    'incident',
    ...pairs.flatMap(({ source, destination, accumulatorThreshold }) => [
      '--pair',
      `${source}:${destination}=${accumulatorThreshold}`,
    ]),
    ...['--prometheus-url', options.gaugesUrl, '--query-window', queryWindow],
    ...['--stale-after-seconds', String(options.staleAfterSeconds)],
    ...options.incidentFlags,
  ])
  const children = [...monitors, incident]
  const urls = await Promise.all(children.map((child) => child.waitForLine(listeningUrl)))
  writeTargets(
    options.targetsFile,
    urls.map((url) => ({ targets: [new URL(url).host] })),
  )
  return { children, urls, events }
}

export function serviceFlags({ source, destination }: Pair): readonly string[] {
  return ['--service1', source, '--service2', destination]
}

/** @throws {StartError} naming the first that is gone */
export function checkRunning(children: readonly Child[], when: string): void {
  const ended = children.find((child) => child.hasEnded())
  if (ended !== undefined) throw new StartError(`${ended.name} ended ${when}`)
}

/** What a pair's monitor said of its polls, in order. */
export function evaluationsOf(events: readonly LogEvent[], { source, destination }: Pair): readonly LogEvent[] {
  return events.filter(
    (event) => event['msg'] === EVALUATED && event['source'] === source && event['destination'] === destination,
  )
}

/** What the incident daemon said of its newest poll. */
export function newestStatus(events: readonly LogEvent[]): LogEvent | undefined {
  return events.findLast(isStatus)
}

export function isStatus({ msg }: LogEvent): boolean {
  return msg === NO_INCIDENT || (typeof msg === 'string' && msg.startsWith(INCIDENT))
}

export function isTransition({ msg }: LogEvent): boolean {
  return msg === TRANSITION
}

export function isAnomalous({ msg, verdict }: LogEvent): boolean {
  return msg === EVALUATED && verdict === 'anomalous'
}
