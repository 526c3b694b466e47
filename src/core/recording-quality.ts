import { loadAndSeason } from './baseline/load-and-season.js'
import { finiteSorted, quantileOf } from './baseline/robust-error.js'
import { bucketOf } from './istio-buckets.js'
import { isoTime, milliseconds, percent, rounded } from './plain-text.js'
import { inSpans, type TimeSpan } from './range-answer.js'
import type { LatencySeries, Recording } from './recording.js'

/** What was asked for, in unix seconds, and what of it was left out on purpose. */
export interface RecordedRange {
  readonly startSeconds: number
  readonly endSeconds: number
  readonly stepSeconds: number
  /** Rising, apart. */
  readonly leftOut: readonly TimeSpan[]
}

export interface SeriesQuality {
  /** Null when the recording does not say which. */
  readonly quantile: number | null
  /** Latencies. */
  readonly samples: number
  /** Times of the range that are not there, next to each other; those left out on purpose are none. */
  readonly gaps: { readonly count: number; readonly longestSeconds: number }
  /** Of the values that are there: no request in the rate window makes no latency. */
  readonly nanShare: number
  /** Median latency, milliseconds; NaN of none. */
  readonly medianMs: number
  /** Median of the second half over that of the first; null when a half has none. */
  readonly driftRatio: number | null
  readonly distinctValues: number
  /** The histogram bucket around the median, and the share of the latencies that lie in it. */
  readonly bucket: { readonly lowerMs: number; readonly upperMs: number; readonly share: number } | null
}

export interface Traffic {
  readonly median: number
  readonly min: number
  readonly max: number
  /** Share of the rates below LOW_REQUESTS_PER_SECOND. */
  readonly lowShare: number
  /** As `driftRatio` of latency. */
  readonly driftRatio: number | null
}

export interface RecordingQuality {
  readonly series: readonly SeriesQuality[]
  /** Requests per second; null when none were recorded. */
  readonly traffic: Traffic | null
  /** Share of the day's five minutes (UTC), or of its steps when those are longer, that has a sample. */
  readonly dayCoverage: number
  readonly goodToTrainOn: boolean
  /** One sentence: whether it is good enough, and what to do when it is not. */
  readonly summary: string
}

/** The monitor's --min-requests-per-second: below it every verdict is low_traffic, and nothing is scored. */
const LOW_REQUESTS_PER_SECOND = 0.1
const MODEL = loadAndSeason.name

/**
 * Half an hour is fifteen times the time over which the model averages (120 s): with fewer the limit of the average rests
 * on a handful of independent values.
 */
const LEAST_SECONDS = 1_800
/** With more than half of it missing or quiet, what is normal is guessed from the lesser part. */
const MOST_MISSING = 0.5
const MOST_LOW_TRAFFIC = 0.5
/** A level that is off by more than this is more than the model ever follows (exp(0.2)). */
const MOST_DRIFT = 1.22
/** From so much of a day on the model looks for a daily profile, which explains why halves of a day differ; */
const DAY_SEEN = 0.9
/** and from two days on both halves hold the whole day. */
const WHOLE_DAYS = 2
/** Fewer values have a median that says little of a change. */
const LEAST_IN_HALF = 15
/** One bucket holds all, but for what rounding and a rare slow request make. */
const ALL_IN_BUCKET = 0.99

const DAY_SECONDS = 86_400
const PHASE_SECONDS = 300

/** How good a recording is to train on. `recording` is what was saved of the range. */
export function recordingQuality(recording: Recording, range: RecordedRange): RecordingQuality {
  const series = recording.series.map((one) => seriesQuality(one, range))
  const traffic = trafficOf(recording.series[0], range)
  const coverage = dayCoverage(recording, range)
  const facts = { series, traffic, dayCoverage: coverage }
  const problems = series.map((one) => problemOf(one, traffic, range))
  const worst = problems.find((problem) => problem !== null) ?? null
  return {
    ...facts,
    goodToTrainOn: worst === null,
    summary:
      worst === null
        ? `Good enough to train ${MODEL} on${remarkOn(facts, range)}.`
        : `Not good enough to train ${MODEL} on: ${worst.what}; ${worst.todo}.`,
  }
}

interface Problem {
  readonly what: string
  readonly todo: string
}

/** The first thing that stands in the way, the plainest first. */
function problemOf(series: SeriesQuality, traffic: Traffic | null, range: RecordedRange): Problem | null {
  const { samples, driftRatio } = series
  const { stepSeconds, startSeconds, endSeconds } = range
  const seconds = samples * stepSeconds
  const missing = 1 - samples / Math.max(1, wantedTimes(range).size)
  const whatever = quantileName(series.quantile)
  if (samples < loadAndSeason.minSamples) {
    return {
      what: `${whatever} has ${samples} samples, and a monitor needs ${loadAndSeason.minSamples} to start`,
      todo: missing > MOST_MISSING ? SEE_DOCTOR : 'record a longer --range, or with a shorter --step-seconds',
    }
  }
  if (missing > MOST_MISSING) {
    return {
      what: `${percent(missing)} of ${whatever} is missing`,
      todo: series.nanShare > MOST_MISSING / 2 ? 'record while there is traffic' : SEE_DOCTOR,
    }
  }
  if (traffic !== null && traffic.lowShare > MOST_LOW_TRAFFIC) {
    return {
      what: `${percent(traffic.lowShare)} of the samples have less than ${LOW_REQUESTS_PER_SECOND} requests per second, too few to tell a quantile by`,
      todo: 'record while there is traffic',
    }
  }
  if (seconds < LEAST_SECONDS) {
    return {
      what: `it holds ${duration(seconds)} of samples, and half an hour is the least that shows what is normal`,
      todo: 'record a longer --range',
    }
  }
  const days = (endSeconds - startSeconds) / DAY_SECONDS
  const byDay = days >= DAY_SEEN && days < WHOLE_DAYS
  if (driftRatio !== null && !byDay && drifted(driftRatio) && !explains(traffic, driftRatio)) {
    return {
      what: `${whatever} of the second half is ${rounded(driftRatio)} times that of the first, and traffic does not explain it`,
      todo: 'record a range without the change, or one of some days',
    }
  }
  return null
}

const SEE_DOCTOR = 'ask meshfever doctor why'

function drifted(ratio: number): boolean {
  return ratio > MOST_DRIFT || ratio < 1 / MOST_DRIFT
}

/** More traffic makes requests slower, and the model learns by how much. */
function explains(traffic: Traffic | null, driftRatio: number): boolean {
  const ratio = traffic?.driftRatio ?? 1
  return drifted(ratio) && ratio > 1 === driftRatio > 1
}

/** What there is to know of a good recording, as the end of its sentence. */
function remarkOn(
  { series, dayCoverage }: Pick<RecordingQuality, 'series' | 'dayCoverage'>,
  { startSeconds, endSeconds }: RecordedRange,
): string {
  const remarks: string[] = []
  if (dayCoverage < DAY_SEEN) {
    const short = endSeconds - startSeconds < DAY_SEEN * DAY_SECONDS
    remarks.push(
      `it shows ${percent(dayCoverage)} of the day${short ? ', and with --range 1d or more the time of day is learnt, too' : ''}`,
    )
  }
  const coarse = series.find(({ bucket }) => bucket !== null && bucket.share >= ALL_IN_BUCKET)
  if (coarse?.bucket) {
    const { lowerMs, upperMs } = coarse.bucket
    remarks.push(
      `${quantileName(coarse.quantile)} never leaves the histogram's bucket from ${rounded(lowerMs)} to ${milliseconds(upperMs)}, within which it is a guess`,
    )
  }
  return remarks.length === 0 ? '' : `; ${remarks.join('; ')}`
}

/** The same for people, a line each. */
export function qualityLines({ series, traffic, dayCoverage, summary }: RecordingQuality): readonly string[] {
  return [
    ...series.map(({ quantile, samples, gaps, nanShare, medianMs, driftRatio, distinctValues, bucket }) =>
      [
        `${quantileName(quantile)}: ${samples} samples`,
        gaps.count === 0
          ? 'no gap'
          : `${gaps.count} ${gaps.count === 1 ? 'gap of' : 'gaps, the longest'} ${duration(gaps.longestSeconds)}`,
        `${percent(nanShare)} NaN`,
        `median ${milliseconds(Number.isNaN(medianMs) ? null : medianMs)}`,
        `second half ${driftRatio === null ? 'unknown' : `${rounded(driftRatio)} times the first`}`,
        `${distinctValues} distinct values`,
        ...(bucket === null
          ? []
          : [
              `${percent(bucket.share)} in the bucket from ${rounded(bucket.lowerMs)} to ${milliseconds(bucket.upperMs)}`,
            ]),
      ].join(', '),
    ),
    traffic === null
      ? 'traffic: not recorded'
      : `traffic: median ${rounded(traffic.median)} requests per second, ${rounded(traffic.min)} to ${rounded(traffic.max)}, ${percent(traffic.lowShare)} below ${LOW_REQUESTS_PER_SECOND}`,
    `time of day: ${percent(dayCoverage)} of it seen`,
    summary,
  ]
}

/** For people: from when to when. */
export function spanText({ fromSeconds, toSeconds }: TimeSpan): string {
  return `${isoTime(fromSeconds)} to ${isoTime(toSeconds)}`
}

function quantileName(quantile: number | null): string {
  return quantile === null ? 'latency' : `p${Number((100 * quantile).toPrecision(6))}`
}

function duration(seconds: number): string {
  const [amount, unit] =
    seconds < 120
      ? [seconds, 's']
      : seconds < 7_200
        ? [seconds / 60, 'min']
        : seconds < 2 * DAY_SECONDS
          ? [seconds / 3_600, 'h']
          : [seconds / DAY_SECONDS, 'days']
  return `${rounded(amount)} ${unit}`
}

function seriesQuality(series: LatencySeries, range: RecordedRange): SeriesQuality {
  const { quantile, timesSeconds, latenciesMs } = series
  const sorted = finiteSorted(latenciesMs)
  const medianMs = quantileOf(sorted, 0.5)
  const around = sorted.length === 0 ? null : bucketOf(medianMs)
  return {
    quantile,
    samples: sorted.length,
    gaps: gapsOf(timesSeconds, range),
    nanShare: latenciesMs.length === 0 ? 0 : 1 - sorted.length / latenciesMs.length,
    medianMs,
    driftRatio: driftOf(latenciesMs, timesSeconds, range),
    distinctValues: new Set(sorted).size,
    bucket: around && {
      ...around,
      share: sorted.filter((ms) => ms > around.lowerMs && ms <= around.upperMs).length / sorted.length,
    },
  }
}

/** The times of the range but for those left out on purpose, milliseconds, by their index in the range. */
function wantedTimes({ startSeconds, endSeconds, stepSeconds, leftOut }: RecordedRange): ReadonlyMap<number, number> {
  const [startMs, endMs, stepMs] = [startSeconds, endSeconds, stepSeconds].map((seconds) => Math.round(seconds * 1000))
  const times = new Map<number, number>()
  if (startMs === undefined || endMs === undefined || stepMs === undefined) return times
  for (let index = 0, timeMs = startMs; timeMs <= endMs; index++, timeMs += stepMs) {
    if (!inSpans(leftOut, timeMs / 1000)) times.set(index, timeMs)
  }
  return times
}

function gapsOf(timesSeconds: readonly number[], range: RecordedRange): SeriesQuality['gaps'] {
  const there = new Set(timesSeconds.map((time) => Math.round(time * 1000)))
  let count = 0
  let longest = 0
  let running = 0
  let lastMissing = NaN
  for (const [index, timeMs] of wantedTimes(range)) {
    if (there.has(timeMs)) continue
    running = index === lastMissing + 1 ? running + 1 : 1
    lastMissing = index
    if (running === 1) count++
    longest = Math.max(longest, running)
  }
  return { count, longestSeconds: longest * range.stepSeconds }
}

/** Median of the values in the second half of the range over the first's; null where one says little, or the first is 0. */
function driftOf(
  values: readonly number[],
  timesSeconds: readonly number[],
  { startSeconds, endSeconds }: RecordedRange,
): number | null {
  const middle = (startSeconds + endSeconds) / 2
  const half = (second: boolean): number[] =>
    finiteSorted(values.filter((_, i) => (timesSeconds[i] ?? NaN) > middle === second))
  const [before, after] = [half(false), half(true)]
  if (Math.min(before.length, after.length) < LEAST_IN_HALF) return null
  const ratio = quantileOf(after, 0.5) / quantileOf(before, 0.5)
  return Number.isFinite(ratio) ? ratio : null
}

function trafficOf(series: LatencySeries | undefined, range: RecordedRange): Traffic | null {
  if (series?.requestsPerSecond == null) return null
  const sorted = finiteSorted(series.requestsPerSecond)
  const [min, max] = [sorted[0], sorted.at(-1)]
  if (min === undefined || max === undefined) return null
  return {
    median: quantileOf(sorted, 0.5),
    min,
    max,
    lowShare: sorted.filter((rate) => rate < LOW_REQUESTS_PER_SECOND).length / sorted.length,
    driftRatio: driftOf(series.requestsPerSecond, series.timesSeconds, range),
  }
}

function dayCoverage({ series }: Recording, { stepSeconds }: RecordedRange): number {
  const phaseSeconds = Math.min(DAY_SECONDS, Math.max(PHASE_SECONDS, stepSeconds))
  const phases = Math.floor(DAY_SECONDS / phaseSeconds)
  const seen = new Set<number>()
  for (const { timesSeconds, latenciesMs } of series) {
    timesSeconds.forEach((time, i) => {
      if (Number.isFinite(latenciesMs[i])) seen.add(Math.floor((time % DAY_SECONDS) / phaseSeconds))
    })
  }
  return Math.min(1, seen.size / phases)
}
