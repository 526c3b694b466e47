import { constants, fstatSync, openSync } from 'node:fs'

import pino, { type Logger } from 'pino'

import { isObject } from '../core/series.js'

export type LogFormat = 'json' | 'table'

/** Messages that the table knows how to show, and that people search for. */
export const EVALUATED = 'evaluated'
export const EVALUATED_MESH = 'evaluated mesh'
export const NO_INCIDENT = 'No incident detected'
export const INCIDENT = 'Incident detected! Severity: Sev '
export const TRANSITION = 'incident transition'

/** What a stalled log reader may make us hold back before lines are dropped. */
const MAX_BUFFERED_BYTES = 2 * 2 ** 20

/** How long a log's reader may take for the last lines. */
const END_DEADLINE_MS = 1_000

const HEADER_EVERY_ROWS = 30

export interface Log {
  readonly logger: Logger
  /** Writes what is still buffered, in order, and ends the log; gives up when its reader takes nothing. */
  readonly end: () => Promise<void>
  /** Drops what is still buffered. Left alone, pino writes it when the process ends: for ever, when the reader takes nothing. */
  readonly giveUp: () => void
}

/** The process's logger: JSON lines, or the same events as a table for people. */
export function createLogger({
  format,
  fileDescriptor,
}: {
  readonly format: LogFormat
  readonly fileDescriptor: number
}): Log {
  let patient = true
  const destination = pino.destination({
    ...{ dest: unblocked(fileDescriptor), sync: false, maxLength: MAX_BUFFERED_BYTES },
    retryEAGAIN: () => patient,
  })
  // A full disk: what could not be written is tried again with the next line, and dropped when it becomes too much.
  destination.on('error', () => undefined)
  const giveUp = (): void => {
    patient = false
    destination.destroy()
  }
  const stream = format === 'json' ? destination : tableStream((text) => destination.write(text))
  return {
    logger: pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream),
    // Not flushSync: it overtakes a write that is under way, and tries for ever on a terminal that is gone.
    end: () =>
      new Promise((resolve) => {
        const patience = setTimeout(() => {
          giveUp()
          resolve()
        }, END_DEADLINE_MS)
        const ended = (): void => {
          clearTimeout(patience)
          resolve()
        }
        destination.once('close', ended)
        destination.once('error', ended)
        destination.end()
      }),
    giveUp,
  }
}

/** The same pipe, opened so that a write which nobody takes fails at once: it would hold a thread, and the end of the process. */
function unblocked(fileDescriptor: number): number {
  try {
    if (!fstatSync(fileDescriptor).isFIFO()) return fileDescriptor
    return openSync(`/proc/self/fd/${fileDescriptor}`, constants.O_WRONLY | constants.O_NONBLOCK)
  } catch {
    return fileDescriptor
  }
}

/** A destination for pino that turns its JSON lines into aligned rows. */
export function tableStream(write: (text: string) => void): { write(line: string): void } {
  const table = createTable()
  return {
    write: (line) => {
      const event: unknown = JSON.parse(line)
      if (isObject(event)) write(table(event))
    },
  }
}

function createTable(): (event: Readonly<Record<string, unknown>>) => string {
  let rows = 0
  return (event) => {
    const time = String(event['time']).replace('T', ' ').slice(0, 19)
    const message = String(event['msg'])
    if (message === EVALUATED) {
      const header = rows++ % HEADER_EVERY_ROWS === 0 ? `${row('Timestamp', 'Anomalies', 'MAE', 'MAPE')}\n` : ''
      return `${header}${evaluatedRow(time, event)}\n`
    }
    if (message === EVALUATED_MESH) return `${time}  ${meshRow(event)}\n`
    if (message === NO_INCIDENT || message.startsWith(INCIDENT)) return `${time}  ${incidentRow(event)}  ${message}\n`
    rows = 0 // other lines tear the table apart, so the next row gets a header
    const evidence: unknown = event['text']
    if (message === TRANSITION && Array.isArray(evidence)) return `${time}  ${evidence.join(`\n${' '.repeat(21)}`)}\n`
    return `${time}  ${levelName(event['level'])}${message}${details(event)}\n`
  }
}

function row(time: string, anomalies: string, mae: string, mape: string): string {
  return `${time.padEnd(19)}  ${anomalies.padStart(9)}  ${mae.padStart(10)}  ${mape.padStart(8)}`
}

function evaluatedRow(time: string, { verdict, anomalyCount, quantiles }: Readonly<Record<string, unknown>>): string {
  const judged = typeof anomalyCount === 'number'
  const first: unknown = Array.isArray(quantiles) ? quantiles[0] : undefined
  const { maeMs, mape } = judged && isObject(first) ? (first as { maeMs?: unknown; mape?: unknown }) : {}
  const number = (value: unknown, digits: number): string => (typeof value === 'number' ? value.toFixed(digits) : '-')
  const cells = row(time, judged ? String(anomalyCount) : '-', number(maeMs, 2), number(mape, 3))
  return judged ? cells : `${cells}  ${String(verdict)}`
}

/** Edges that a row of a mesh names. */
const MAX_NAMED_EDGES = 3

function meshRow({ edges, verdicts, hottest }: Readonly<Record<string, unknown>>): string {
  const counts = Object.entries(isObject(verdicts) ? verdicts : {})
    .filter(([, count]) => count !== 0)
    .map(([verdict, count]) => `${String(count)} ${verdict}`)
  const hot = (Array.isArray(hottest) ? hottest : [])
    .filter((edge) => isObject(edge) && edge['verdict'] === 'anomalous')
    .slice(0, MAX_NAMED_EDGES)
    .map((edge: Readonly<Record<string, unknown>>) => {
      const { source, destination, score } = edge
      return `${String(source)} -> ${String(destination)} ${typeof score === 'number' ? score.toFixed(1) : '-'}`
    })
  const named = hot.length === 0 ? '' : `  furthest out: ${hot.join(', ')}`
  return `${String(edges).padStart(5)} edges: ${counts.join(', ')}${named}`
}

function incidentRow({ temperature, accumulators, unknown }: Readonly<Record<string, unknown>>): string {
  const silent = isObject(unknown) ? unknown : {}
  const pairs = Object.entries(isObject(accumulators) ? accumulators : {}).map(([pair, level]) => {
    const reason = silent[pair]
    return `${pair} ${String(level).padStart(2)}${typeof reason === 'string' ? ` (${reason})` : ''}`
  })
  return `temperature ${String(temperature).padStart(3)}  ${pairs.join('  ')}`
}

function levelName(level: unknown): string {
  return typeof level !== 'number' || level < 40 ? '' : level < 50 ? 'warning: ' : 'error: '
}

function details(fields: Readonly<Record<string, unknown>>): string {
  const shown = Object.entries(fields)
    .filter(([name, value]) => !['level', 'time', 'msg'].includes(name) && value !== null && value !== '')
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
  return shown.length === 0 ? '' : `: ${shown.join(', ')}`
}
