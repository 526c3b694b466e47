import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { StartError, UsageError } from '../core/errors.js'
import { INCIDENT_NOW_QUERY, incidentSpans, incidentTimesQuery } from '../core/incident-spans.js'
import { LEAST_STEP_SECONDS, meshPairsOf, meshPairsQuery } from '../core/mesh-pairs.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { pairFileNames } from '../core/pair-file-names.js'
import { firstFew, isoTime, oneLine, plainName } from '../core/plain-text.js'
import { SERIES_LABEL } from '../core/promql.js'
import { documentOf, rangeAnswerOf, resultText, type TimeSpan, withoutSpans } from '../core/range-answer.js'
import { readRecording, type Recording } from '../core/recording.js'
import { qualityLines, type RecordingQuality, recordingQuality, spanText } from '../core/recording-quality.js'
import { type Matrix, parseAnswer } from '../core/series.js'
import { writeAtomically } from './atomic-file.js'
import { type Asked, openPartialRecording, type PartialRecording } from './partial-recording.js'
import { createProgress, type Progress, show } from './progress.js'
import { type Answer, queryInstant } from './prometheus.js'
import { fetchHistory, type HistoryRequest, pointsIn } from './range-history.js'
import type { Runtime } from './runtime.js'
import { MAX_FILE_BYTES } from './training-file.js'

export interface RecordRequest {
  readonly pair: Pair
  readonly prometheusUrl: string
  readonly query: string
  readonly startSeconds: number
  readonly endSeconds: number
  readonly stepSeconds: number
  /** Rate window of the query: so long after an incident a sample still shows it. 0 unless given. */
  readonly windowSeconds?: number
  /** Record even while the incident daemon says that what happens is not normal. */
  readonly despiteIncident: boolean
}

export interface SavedRecording extends Recording {
  /** Times of the range that are not in the file, because there was an incident. */
  readonly leftOut: readonly TimeSpan[]
  readonly quality: RecordingQuality
}

/** One recording of a pair, or several of them into a folder. */
export interface RecordJob extends Omit<RecordRequest, 'pair' | 'query'> {
  /** At least one, or all that Istio's labels show over the range. */
  readonly pairs: readonly Pair[] | 'all'
  readonly sourceLabel: string
  readonly destinationLabel: string
  readonly queryOf: (pair: Pair) => string
  /** How many series the query answers for a pair. */
  readonly seriesPerPair: number
  /** A folder for several pairs and for all of them. */
  readonly output: string
  /** The range as it was asked for, in words that are the same whenever the command is given again. */
  readonly rangeAsked: string
}

/** The least that a sample takes in a file: [1700000000,"8.5"] and a comma. */
const LEAST_SAMPLE_BYTES = 20

const DEADLINE_MS = 60_000

/**
 * Saves a range of a pair's history: Prometheus's answer byte for byte where it came as one, with one more top-level key that
 * says what it is. Times with an incident are left out, unless told.
 *
 * @throws {StartError} when Prometheus does not answer, or has nothing to save, or during an incident
 */
export async function saveRecording(runtime: Runtime, request: RecordRequest, path: string): Promise<SavedRecording> {
  try {
    if (!request.despiteIncident) await refuseDuringIncident(runtime, request)
    const leftOut = request.despiteIncident ? [] : await findIncidents(runtime, request)
    const saved = await savePair(runtime, { ...request, leftOut }, path)
    if (typeof saved === 'string') throw new StartError(saved)
    return saved
  } catch (error) {
    throw error instanceof StartError ? nothingRecorded(error) : error
  }
}

function nothingRecorded(error: StartError): StartError {
  return new StartError(`nothing recorded: ${error.message}`, { cause: error })
}

/**
 * Records one pair after the other, and tells of each; goes on where an earlier try with the same job was cut short.
 *
 * @returns how many pairs had nothing to save, which each was told
 * @throws {StartError} as `saveRecording`, and when it is cut short; what was fetched until then is kept
 * @throws {UsageError} when the range is not one, or the output is in the way
 */
export async function record(runtime: Runtime, job: RecordJob): Promise<number> {
  checkRange(runtime, job)
  const toFolder = job.pairs === 'all' || job.pairs.length > 1
  checkOutput(job.output, toFolder)
  const partial = openPartialRecording(
    toFolder ? join(job.output, 'unfinished.partial.ndjson') : `${job.output}.partial.ndjson`,
    askedOf(job),
  )
  const progress = { shown: null as Progress | null }
  try {
    if (!job.despiteIncident) await refuseDuringIncident(runtime, job)
    const begun = partial.kept?.begun ?? {
      startSeconds: job.startSeconds,
      endSeconds: job.endSeconds,
      pairs: job.pairs === 'all' ? await findPairs(runtime, job) : job.pairs,
    }
    if (partial.kept !== null) tellOfGoingOn(runtime, partial)
    partial.begin(begun)
    const range = { ...job, startSeconds: begun.startSeconds, endSeconds: begun.endSeconds }
    const leftOut = job.despiteIncident ? [] : await findIncidents(runtime, range)
    if (toFolder) makeFolder(job.output)
    const names = pairFileNames(begun.pairs)
    let without = 0
    for (const [pairIndex, pair] of begun.pairs.entries()) {
      const path = toFolder ? join(job.output, names.get(pairKey(pair)) ?? '') : job.output
      if (partial.kept?.saved.has(pairIndex) === true && existsSync(path)) continue
      progress.shown ??= createProgress(runtime, begun.pairs.length)
      const bar = progress.shown
      const unfinished = partial.kept?.unfinished
      const saved = await savePair(
        runtime,
        {
          ...range,
          pair,
          leftOut,
          query: job.queryOf(pair),
          fetched: unfinished?.pairIndex === pairIndex ? unfinished.chunks : [],
          onChunk: (chunk) => partial.keepChunk(pairIndex, chunk),
          onProgress: (done) => bar.update(pairIndex, done),
        },
        path,
      )
      await bar.end()
      if (typeof saved !== 'string') await tellOfSaved(runtime, { pair, path, saved, range })
      else if (!toFolder) throw new StartError(saved)
      else {
        without++
        runtime.logger.warn({ pair: plainName(pairName(pair)), reason: saved }, 'nothing recorded')
      }
      if (typeof saved !== 'string' && pairIndex < begun.pairs.length - 1) partial.keepSaved(pairIndex)
    }
    partial.remove()
    return without
  } catch (error) {
    await progress.shown?.end()
    if (!(error instanceof StartError)) throw error
    if (!partial.exists()) throw nothingRecorded(error)
    throw new StartError(
      `not all recorded: ${error.message}; what was fetched until then is kept, as partial, in ${partial.path}, and the same command goes on from there`,
      { cause: error },
    )
  }
}

/** @throws {UsageError} when the range cannot be recorded, or only to a file that nobody could read */
function checkRange(runtime: Runtime, { startSeconds, endSeconds, stepSeconds, seriesPerPair }: RecordJob): void {
  const text = (seconds: number): string => (Math.abs(seconds) < 1e11 ? isoTime(seconds) : String(seconds))
  const nowSeconds = runtime.clock.nowMs() / 1000
  if (!(startSeconds > 0)) throw new UsageError(`the range must begin after 1970, got ${text(startSeconds)}`)
  if (!(startSeconds < endSeconds)) {
    throw new UsageError(`--from must be before --to, got ${text(startSeconds)} and ${text(endSeconds)}`)
  }
  if (endSeconds > nowSeconds) {
    throw new UsageError(`--to must not be in the future, got ${text(endSeconds)} at ${text(nowSeconds)}`)
  }
  const points = pointsIn({ startSeconds, endSeconds, stepSeconds })
  const most = Math.floor(MAX_FILE_BYTES / LEAST_SAMPLE_BYTES / seriesPerPair)
  if (points > most) {
    throw new UsageError(
      `the range over --step-seconds must be at most ${most} samples (a recording is read up to ${MAX_FILE_BYTES / 2 ** 20} MiB), got ${points}`,
    )
  }
}

/** @throws {UsageError} when what is at `path` is not to be written over */
function checkOutput(path: string, folder: boolean): void {
  if (!existsSync(path)) return
  const found = statSync(path)
  if (folder ? found.isDirectory() : found.isFile()) return
  const what = found.isDirectory() ? 'a folder' : found.isFile() ? 'a file' : 'neither a file nor a folder'
  throw new UsageError(
    folder
      ? `--output must be a folder for several pairs, got ${path}, which is ${what}`
      : `--output must be a file for one pair, got ${path}, which is ${what}`,
  )
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new StartError(`cannot make the folder ${path}: ${(error as Error).message}`, { cause: error })
  }
}

function askedOf({ prometheusUrl, stepSeconds, rangeAsked, pairs, queryOf }: RecordJob): Asked {
  return {
    '--prometheus-url': prometheusUrl,
    '--step-seconds': stepSeconds,
    range: rangeAsked,
    pairs: pairs === 'all' ? pairs : pairs.map(({ source, destination }) => `${source}:${destination}`).join(','),
    query: queryOf({ source: 'SOURCE', destination: 'DESTINATION' }),
  }
}

/** The pairs that Istio's labels show over the range; those with an unknown side are told of and left out. */
async function findPairs(runtime: Runtime, job: RecordJob): Promise<readonly Pair[]> {
  const { prometheusUrl, startSeconds, endSeconds, sourceLabel, destinationLabel } = job
  const stepSeconds = Math.max(job.stepSeconds, LEAST_STEP_SECONDS)
  // Each step tells of the time since the one before, back from the range's end.
  const steps = Math.ceil((endSeconds - startSeconds) / stepSeconds)
  const answer = await fetchHistory(runtime, {
    prometheusUrl,
    query: meshPairsQuery(job, stepSeconds),
    startSeconds: endSeconds - (steps - 1) * stepSeconds,
    endSeconds,
    stepSeconds,
  })
  const { known, unknown } = meshPairsOf(answered(runtime, prometheusUrl, answer).data, job)
  if (unknown.length > 0) {
    const pairs = unknown.map((pair) => plainName(pairName(pair)))
    runtime.logger.info({ pairs }, 'pairs with a side that Istio does not know were left out')
  }
  if (known.length > 0) return known
  throw new StartError(
    `Prometheus has no istio_request_duration_milliseconds_count with reporter="source", ${sourceLabel} and ${destinationLabel} in this range; ask meshfever doctor why`,
  )
}

/** Nothing is recorded as normal while the temperature is above 0. */
async function refuseDuringIncident(
  runtime: Runtime,
  { prometheusUrl }: { readonly prometheusUrl: string },
): Promise<void> {
  const answer = await queryInstant(runtime, { prometheusUrl, query: INCIDENT_NOW_QUERY, deadlineMs: DEADLINE_MS })
  if (answered(runtime, prometheusUrl, answer).data.result.length === 0) return
  throw new StartError(
    'an incident is open or cooling, and nothing is recorded as normal before it is over; ' +
      'record later, or with --despite-incident',
  )
}

/** When there was an incident in the range, or so shortly before it that its first samples show it. */
async function findIncidents(
  runtime: Runtime,
  request: Pick<RecordRequest, 'prometheusUrl' | 'startSeconds' | 'endSeconds' | 'stepSeconds' | 'windowSeconds'>,
): Promise<readonly TimeSpan[]> {
  const { prometheusUrl, startSeconds, endSeconds, stepSeconds, windowSeconds = 0 } = request
  const answer = await fetchHistory(runtime, {
    prometheusUrl,
    query: incidentTimesQuery(stepSeconds),
    startSeconds: startSeconds - Math.ceil(windowSeconds / stepSeconds) * stepSeconds,
    endSeconds,
    stepSeconds,
  })
  const hot = answered(runtime, prometheusUrl, answer).data.result[0]?.timesSeconds ?? []
  return incidentSpans(hot, { stepSeconds, windowSeconds, startSeconds, endSeconds })
}

type Answered<T> = Extract<Answer<T>, { kind: 'answer' }>

/** @throws {StartError} when it is none */
function answered<T>(runtime: Runtime, prometheusUrl: string, answer: Answer<T>): Answered<T> {
  if (answer.kind === 'answer') return answer
  if (runtime.signal.aborted) throw new StartError('stopped')
  throw new StartError(`Prometheus at ${prometheusUrl}: ${answer.detail}`)
}

/** @returns what was saved, or in words why there is nothing to save */
async function savePair(
  runtime: Runtime,
  request: RecordRequest &
    Pick<HistoryRequest, 'fetched' | 'onChunk' | 'onProgress'> & { readonly leftOut: readonly TimeSpan[] },
  path: string,
): Promise<SavedRecording | string> {
  const { prometheusUrl, pair, leftOut, startSeconds, endSeconds, stepSeconds } = request
  const answer = answered(runtime, prometheusUrl, await fetchHistory(runtime, request))
  if (answer.data.warnings > 0) {
    const said = rangeAnswerOf(JSON.parse(answer.text)).warnings
    runtime.logger.warn(
      { pair: plainName(pairName(pair)), warnings: said.map(oneLine) },
      'Prometheus warned of its answer',
    )
  }
  const whole = recordingOf(answer.data)
  if (whole === null) {
    return `Prometheus has no latency from ${pair.source} to ${pair.destination} in this range; ask meshfever doctor why`
  }
  if (!hasSamples(whole)) return `no request from ${pair.source} to ${pair.destination} in this range`
  const cut = leftOut.length === 0 ? null : documentOf(withoutSpans(rangeAnswerOf(JSON.parse(answer.text)), leftOut))
  const recording = cut === null ? whole : recordingOf(parseAnswer(cut, 'matrix'))
  if (recording === null || !hasSamples(recording)) {
    return `all samples from ${pair.source} to ${pair.destination} in this range lie in incidents; record another range, or with --despite-incident`
  }
  const text = cut === null ? answer.text : JSON.stringify(cut)
  const about = {
    pair,
    query: request.query,
    step_seconds: stepSeconds,
    range_seconds: [startSeconds, endSeconds],
    left_out: leftOut.map(({ fromSeconds, toSeconds }) => [fromSeconds, toSeconds]),
    recorded_at: new Date(runtime.clock.nowMs()).toISOString(),
    sha256: createHash('sha256').update(resultText(text)).digest('hex'),
  }
  writeAtomically(path, `${text.slice(0, text.lastIndexOf('}'))},"meshfever":${JSON.stringify(about)}}\n`)
  return {
    ...recording,
    leftOut,
    quality: recordingQuality(recording, { startSeconds, endSeconds, stepSeconds, leftOut }),
  }
}

/** Null when there is no latency in it. @throws {ShapeError} when it is no recording for another reason */
function recordingOf(matrix: Matrix): Recording | null {
  return matrix.result.every(({ labels }) => labels.has(SERIES_LABEL)) ? null : readRecording(matrix)
}

function hasSamples({ series }: Recording): boolean {
  return series.some(({ latenciesMs }) => latenciesMs.some(Number.isFinite))
}

function tellOfGoingOn(runtime: Runtime, { path, kept }: PartialRecording): void {
  if (kept === null) return
  const { begun, saved, unfinished } = kept
  const { startSeconds: fromSeconds, endSeconds: toSeconds } = begun
  runtime.logger.info(
    {
      file: path,
      range: spanText({ fromSeconds, toSeconds }),
      savedPairs: saved.size,
      chunks: unfinished?.chunks.length ?? 0,
    },
    'going on with an unfinished recording, over the range that it was begun with',
  )
}

/** A block of lines on a terminal, else one line with everything in fields. */
async function tellOfSaved(
  runtime: Runtime,
  told: {
    readonly pair: Pair
    readonly path: string
    readonly saved: SavedRecording
    readonly range: { readonly startSeconds: number; readonly endSeconds: number; readonly stepSeconds: number }
  },
): Promise<void> {
  const { logger, stdout } = runtime
  const { pair, path, saved, range } = told
  const { quality, leftOut, series } = saved
  const name = plainName(pairName(pair))
  const span = spanText({ fromSeconds: range.startSeconds, toSeconds: range.endSeconds })
  if (stdout.isTerminal) {
    const lines = [
      `${name}: saved to ${path}`,
      `range: ${span}, every ${range.stepSeconds} s`,
      ...(leftOut.length === 0 ? [] : [`left out because of incidents: ${firstFew(leftOut.map(spanText), 5, '; ')}`]),
      ...qualityLines(quality),
    ]
    await show(runtime, `${lines.join('\n  ')}\n`)
    return
  }
  logger[quality.goodToTrainOn ? 'info' : 'warn'](
    {
      pair: name,
      output: path,
      range: span,
      stepSeconds: range.stepSeconds,
      leftOut: leftOut.map(spanText),
      series: quality.series.map(({ gaps, bucket, ...one }, i) => ({
        ...one,
        missing: series[i]?.latenciesMs.filter(Number.isNaN).length,
        gaps: gaps.count,
        longestGapSeconds: gaps.longestSeconds,
        bucketMs: bucket && [bucket.lowerMs, bucket.upperMs],
        bucketShare: bucket?.share,
      })),
      requestsPerSecond: quality.traffic,
      dayCoverage: quality.dayCoverage,
      goodToTrainOn: quality.goodToTrainOn,
      summary: quality.summary,
    },
    'recorded',
  )
}
