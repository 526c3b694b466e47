import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { UsageError } from '../core/errors.js'
import { parseGroundTruth } from '../core/ground-truth.js'
import type { IncidentRules } from '../core/incident.js'
import {
  booleanAt,
  type Fields,
  fieldsAt,
  listAt,
  numberAt,
  numberOrNullAt,
  objectAt,
  oneOfAt,
  pairAt,
  textAt,
  timeAt,
} from '../core/json-fields.js'
import { pairFileNames } from '../core/pair-file-names.js'
import { type Pair, pairKey } from '../core/pair.js'
import type { LoggedVerdict, RecordedRun, TransitionLine } from '../core/recorded-run.js'
import type { ScoringRules } from '../core/score.js'
import { type Matrix, parseAnswer, ShapeError } from '../core/series.js'
import { parseVerdictLine } from '../core/verdict-line.js'

/** Where a run keeps what the pairs' monitors were trained on, in the order of the pairs. */
export function trainingFiles(folder: string, pairs: readonly Pair[]): readonly string[] {
  const names = pairFileNames(pairs)
  return pairs.map((pair) => join(folder, 'training', names.get(pairKey(pair)) ?? ''))
}

/** Parsing takes several times the file's size in memory. */
const MAX_FILE_BYTES = 512 * 2 ** 20

/**
 * Reads a recorded run. What a run that was cut short does not hold is taken as empty.
 *
 * @throws {UsageError} of one line that names the file and the place
 */
export function readRunFolder(folder: string): RecordedRun {
  const run = fieldsAt(readJson(join(folder, 'run.json')), join(folder, 'run.json'))
  const partial = booleanAt(run, 'partial')
  /** What was there before the end. */
  const present = <T>(name: string, otherwise: T, read: (path: string) => T): T => {
    const path = join(folder, name)
    return partial && !isThere(path) ? otherwise : read(path)
  }
  const polls = run.values['incidentPolls'] === undefined ? null : objectAt(run, 'incidentPolls')
  const rules = rulesIn(run)
  return {
    name: textAt(run, 'name'),
    observedFromSeconds: timeAt(run, 'observedFromSeconds'),
    endedSeconds: timeAt(run, 'endedSeconds'),
    partial,
    application: textAt(run, 'application'),
    target: textAt(run, 'target'),
    rules,
    model: textAt(run, 'model'),
    scoring: scoringIn(objectAt(run, 'scoring')),
    quantiles: listAt(run, 'quantiles').map((_, i, all) => numberAt(fieldsOfList(run, 'quantiles', all), String(i))),
    pollIntervalSeconds: positiveAt(run, 'pollIntervalSeconds'),
    staleAfterSeconds: positiveAt(run, 'staleAfterSeconds'),
    queryWindowSeconds: run.values['queryWindowSeconds'] === undefined ? 60 : positiveAt(run, 'queryWindowSeconds'),
    truth: present('ground-truth.json', null, (path) => parseGroundTruth(readJson(path), path)),
    verdicts: present('verdicts.ndjson', [], (path) => readLines(path, { partial, parse: loggedVerdict })),
    transitions: present('incidents.ndjson', [], (path) => readLines(path, { partial, parse: transitionLine })),
    history: present('metrics/anomaly-history.json', NO_HISTORY, readMatrix),
    incidentPolls:
      polls === null ? null : { fromSeconds: timeAt(polls, 'fromSeconds'), toSeconds: timeAt(polls, 'toSeconds') },
  }
}

const NO_HISTORY: Matrix = { resultType: 'matrix', result: [], warnings: 0, reordered: 0 }

function fieldsOfList({ place }: Fields, name: string, list: readonly unknown[]): Fields {
  return { place: `${place}: ${name}`, values: Object.fromEntries(list.entries()) }
}

function positiveAt(fields: Fields, name: string): number {
  const value = numberAt(fields, name)
  if (!(value > 0)) throw new UsageError(`${fields.place}: ${name}: expected a positive number, got ${value}`)
  return value
}

function rulesIn(run: Fields): IncidentRules {
  const pairs = listAt(run, 'pairs').map((item, i) => {
    const pair = fieldsAt(item, `${run.place}: pairs[${i}]`)
    return { ...pairAt(pair), accumulatorThreshold: numberAt(pair, 'accumulatorThreshold') }
  })
  if (pairs.length === 0) throw new UsageError(`${run.place}: pairs: expected at least one, got none`)
  const incident = objectAt(run, 'incident')
  return {
    pairs,
    incidentThreshold: numberAt(incident, 'incidentThreshold'),
    clearThreshold: numberAt(incident, 'clearThreshold'),
    coolBy: numberAt(incident, 'coolBy'),
    accumulatorMax: numberAt(incident, 'accumulatorMax'),
    noDataTimeoutSeconds: numberAt(incident, 'noDataTimeoutSeconds'),
  }
}

function scoringIn(scoring: Fields): ScoringRules {
  return {
    direction: oneOfAt(scoring, 'direction', ['above', 'both']),
    minRequestsPerSecond: numberAt(scoring, 'minRequestsPerSecond'),
    minDeviationMs: numberAt(scoring, 'minDeviationMs'),
    minDeviationRatio: numberAt(scoring, 'minDeviationRatio'),
    sloMs: numberOrNullAt(scoring, 'sloMs'),
  }
}

function loggedVerdict(line: Fields): LoggedVerdict {
  const loggedSeconds = Date.parse(textAt(line, 'time')) / 1000
  if (Number.isNaN(loggedSeconds))
    throw new UsageError(
      `${line.place}: time: expected a time such as 2026-01-31T12:00Z, got ${JSON.stringify(line.values['time'])}`,
    )
  return { loggedSeconds, line: parseVerdictLine(line) }
}

function transitionLine(line: Fields): TransitionLine {
  const text = line.values['text']
  const accumulators = objectAt(line, 'accumulators')
  return {
    timestampSeconds: timeAt(line, 'timestampSeconds'),
    transition: oneOfAt(line, 'transition', ['opened', 'escalated', 'de-escalated', 'resolved', 'expired']),
    severity: line.values['severity'] === null ? null : oneOfAt(line, 'severity', [1, 2]),
    startedSeconds: timeAt(line, 'startedSeconds'),
    temperature: numberAt(line, 'temperature'),
    accumulators: Object.fromEntries(
      Object.keys(accumulators.values).map((name) => [name, numberAt(accumulators, name)]),
    ),
    text: Array.isArray(text) ? text.filter((sentence) => typeof sentence === 'string') : [],
  }
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}

/** @throws {UsageError} naming the path */
function readText(path: string): string {
  try {
    const stat = statSync(path)
    if (!stat.isFile()) throw new UsageError(`${path}: not a regular file`)
    if (stat.size > MAX_FILE_BYTES) {
      throw new UsageError(
        `${path}: expected at most ${MAX_FILE_BYTES / 2 ** 20} MiB, got ${(stat.size / 2 ** 20).toFixed(1)} MiB`,
      )
    }
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof UsageError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    const reason = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'not permitted to read it' : message
    throw new UsageError(`${path}: ${reason}`, { cause: error })
  }
}

/** @throws {UsageError} naming the path */
export function readJson(path: string): unknown {
  const text = readText(path)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new UsageError(`${path}: not JSON: ${(error as Error).message}`, { cause: error })
  }
}

/** One JSON object a line. Of a run that was cut short the last line may be torn. */
function readLines<T>(
  path: string,
  { partial, parse }: { readonly partial: boolean; readonly parse: (line: Fields) => T },
): readonly T[] {
  const lines = readText(path).split('\n')
  return lines.flatMap((text, i) => {
    if (text.trim() === '') return []
    const place = `${path}: line ${i + 1}`
    let document: unknown
    try {
      document = JSON.parse(text)
    } catch (error) {
      if (partial && i === lines.length - 1) return []
      throw new UsageError(`${place}: not JSON: ${(error as Error).message}`, { cause: error })
    }
    return [parse(fieldsAt(document, place))]
  })
}

function readMatrix(path: string): Matrix {
  try {
    return parseAnswer(readJson(path), 'matrix')
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error
    throw new UsageError(`${path}: not a saved answer of Prometheus: ${error.message}`, { cause: error })
  }
}
