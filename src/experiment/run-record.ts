import { appendFileSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { StartError, UsageError } from '../core/errors.js'
import { type GroundTruth, groundTruthJson } from '../core/ground-truth.js'
import type { WatchedPair } from '../core/incident.js'
import { pairFileNames } from '../core/pair-file-names.js'
import { type Pair, pairKey } from '../core/pair.js'
import type { ScoringRules } from '../core/score.js'
import { writeAtomically } from '../io/atomic-file.js'
import { EVALUATED } from '../io/log.js'
import { eventOf } from '../testbed/child-process.js'
import { isTransition } from '../testbed/daemon-processes.js'
import type { Experiment } from './experiment-file.js'

/** What `run.json` says of a run. Times in unix seconds. */
export interface RunFacts {
  readonly name: string
  readonly description: string
  readonly startedSeconds: number
  readonly observedFromSeconds: number
  readonly endedSeconds: number
  /** True until the run has come to its end. */
  readonly partial: boolean
  readonly seed: number
  readonly target: string
  readonly application: string
  /** By what all times of the experiment were divided. */
  readonly compressedBy: number
  readonly versions: Readonly<Record<string, string>>
  readonly pairs: readonly WatchedPair[]
  readonly quantiles: readonly number[]
  readonly model: string
  readonly scoring: ScoringRules
  readonly incident: Experiment['incident']
  readonly scrapeIntervalSeconds: number
  readonly queryWindowSeconds: number
  readonly pollIntervalSeconds: number
  readonly staleAfterSeconds: number
  readonly recordStepSeconds: number
  /** The first and the last poll that the incident daemon folded, absent before there are any. */
  readonly incidentPolls?: { readonly fromSeconds: number; readonly toSeconds: number }
}

/** The folder of a run, written while it runs, so that what there is stays whatever happens. */
export interface RunRecord {
  readonly folder: string
  /** The path of a file in it; the folder it lies in is there. */
  readonly pathOf: (...names: readonly string[]) => string
  readonly write: (names: readonly string[], content: string) => void
  /** How the files of a pair are called, without their endings. */
  readonly stemOf: (pair: Pair) => string
  /** The experiment as it was given, and files that are empty until something happens. */
  readonly begin: (experiment: string) => void
  readonly facts: (facts: RunFacts) => void
  readonly groundTruth: (truth: GroundTruth) => void
  /** A line of a process's output. @throws {StartError} when it cannot be kept */
  readonly log: (process: string, line: string) => void
  /** Takes everything away again. For a run that never began. */
  readonly discard: () => void
}

const TRUTH = 'ground-truth.json'
const VERDICTS = 'verdicts.ndjson'
const INCIDENTS = 'incidents.ndjson'

/**
 * @param folder - is made; may be there when it is empty
 * @throws {UsageError} when there is something in it
 * @throws {StartError} when it cannot be made
 */
export function createRunRecord(folder: string, pairs: readonly Pair[]): RunRecord {
  const isNew = statSync(folder, { throwIfNoEntry: false }) === undefined
  try {
    mkdirSync(folder, { recursive: true })
    if (readdirSync(folder).length > 0) {
      throw new UsageError(`--output must be a new or an empty folder, got ${JSON.stringify(folder)} with files in it`)
    }
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new StartError(`cannot make the folder ${folder}: ${(error as Error).message}`, { cause: error })
  }
  const written = new Set<string>()
  const pathOf = (...names: readonly string[]): string => {
    const path = join(folder, ...names)
    written.add(names[0] ?? '')
    try {
      if (names.length > 1) mkdirSync(join(folder, ...names.slice(0, -1)), { recursive: true })
    } catch (error) {
      throw new StartError(`cannot write ${path}: ${(error as Error).message}`, { cause: error })
    }
    return path
  }
  const append = (path: string, line: string): void => {
    try {
      appendFileSync(path, `${line}\n`)
    } catch (error) {
      throw new StartError(`cannot write ${path}: ${(error as Error).message}`, { cause: error })
    }
  }
  const write = (names: readonly string[], content: string): void => writeAtomically(pathOf(...names), content)
  const fileNames = pairFileNames(pairs)
  return {
    folder,
    pathOf,
    write,
    stemOf: (pair) => (fileNames.get(pairKey(pair)) ?? '').replace(/\.json$/, ''),
    begin: (experiment) => {
      write(['experiment.yaml'], experiment)
      for (const name of [VERDICTS, INCIDENTS]) write([name], '')
    },
    facts: (facts) => write(['run.json'], `${JSON.stringify(facts, null, 2)}\n`),
    groundTruth: (truth) => write([TRUTH], `${JSON.stringify(groundTruthJson(truth), null, 2)}\n`),
    log: (process, line) => {
      const event = eventOf(line)
      append(pathOf('logs', `${process}.ndjson`), event === undefined ? JSON.stringify({ line }) : line)
      if (event?.['msg'] === EVALUATED) append(pathOf(VERDICTS), line)
      if (event !== undefined && isTransition(event)) append(pathOf(INCIDENTS), line)
    },
    discard: () => {
      for (const name of written) rmSync(join(folder, name), { recursive: true, force: true })
      if (isNew) rmSync(folder, { recursive: true, force: true })
    },
  }
}
