import { bucketOf } from '../istio-buckets.js'
import { MAX_LATENCY_MS } from '../reading.js'
import { createModel, type Judgement, type Model, type Observation, type Training, type Watch } from './model.js'
import {
  anyPhase,
  driftPhase,
  expectPhase,
  learnPhase,
  type PhaseBelief,
  type PhaseExpectation,
  trainingsPhase,
} from './phase-tracker.js'
import {
  beyondTraining,
  expectedLogLatency,
  fitRateCurve,
  logRateOf,
  nearestNode,
  nodesOf,
  type RateCurve,
  scatterAt,
  withScatter,
} from './rate-curve.js'
import {
  clamp,
  clippedMeanAbs,
  clippedRms,
  finiteSorted,
  MAD_TO_SIGMA,
  MEAN_ABS_TO_SIGMA,
  quantileOf,
} from './robust-error.js'
import { findSeason, MIN_GAIN, phaseAt, type Season, seasonIn } from './season.js'
import { tailLimit } from './tail-limit.js'

// --- limits
/** Wanted share of normal samples beyond each limit, at steps of up to REFERENCE_STEP_SECONDS. */
const EXCEEDANCE = 0.01
/** At longer steps the share falls in proportion: to the incident rule a sample of five minutes is as good as ten polls. */
const REFERENCE_STEP_SECONDS = 30
/** No limit lies below so many robust sigmas of its own statistic: a short training's excursions are too few to prove less. */
const MIN_LIMIT_SIGMAS = 3.2
/** A fall needs twice the limit of a rise: faster answers are rarely an emergency. */
const DROP_FACTOR = 2

// --- evidence
/** Time constant of the running mean: two windows of rate(...[1m]). */
const MEAN_SECONDS = 120
/** The band never narrows below this share of the sample's limit, so that the alarm ends as soon as latency is back. */
const NARROWEST = 0.2
/**
 * A sample counts at most this many limits in the running mean. 1 / (1 - exp(-180 / 120)) = 1.29: a burst of 60 s, which the
 * rate window shows for 120 s, cannot bring the mean to its limit; nor can one shown for 180 s.
 */
const BURST = 1.3

// --- resolution
/**
 * Least half width as a share of the histogram bucket around yhat. The median of requests that all lie in one bucket moves
 * by w e / (2 - 2 e) when a share e of them leaves the bucket of width w; 11 % leaving make 0.06 w.
 */
const BUCKET_SHARE = 0.06
/** Least scatter, 2 %: a flat recording does not promise a flat future. */
const MIN_SCATTER = 0.02

// --- adaptation
/** How fast the level follows. */
const LEVEL_SECONDS = 2_700
/** All that is ever forgiven: a factor of exp(0.2) = 1.22 either way. */
const LEVEL_MAX = 0.2
/** How far the level of a stream usually is from the training's when it starts. */
const LEVEL_PRIOR_SIGMA = 0.05

/** Local scatter is drawn to the overall one with the weight of so many samples. */
const SHRINKAGE = 20
const LOG_MAX_LATENCY = Math.log(MAX_LATENCY_MS)
/** Fewer samples with a request rate show no curve. */
const MIN_RATE_SAMPLES = 60
const MIN_SAMPLES = 30
/** A larger lag-1 autocorrelation than this cannot be told from it in a recording of ordinary length. */
const MAX_AUTOCORRELATION = 0.82
/** A residual counts at most this many sigmas in estimates of scatter and of autocorrelation. */
const OUTLIER_SIGMAS = 5

/**
 * Log latency as a level, a curve over the request rate, a daily profile or a load cycle, each taken only where it predicts
 * the recording better than the simpler one; limits from the residuals of samples that were held out; a running mean that
 * narrows the band while something has been off for a while; and a level that follows the stream by a fifth at most, learnt
 * only from samples inside the band. docs/detection.md has the formulas, their sources and what each part is worth.
 */
export const loadAndSeason: Model = createModel({
  name: 'load-and-season',
  minSamples: MIN_SAMPLES,
  parametersOf: fitBaseline,
  fittedFrom: (baseline) => ({ summary: summaryOf(baseline), watch: () => new LoadAndSeasonWatch(baseline) }),
})

// Flat, since a mesh keeps thousands of them.
interface Baseline extends Limits {
  /** Log latencies below this are all alike; it keeps the logarithm of 0 away. */
  readonly leastLatencyMs: number
  readonly stepSeconds: number
  /** Median log latency. */
  readonly level: number
  readonly rate: RateBaseline | null
  readonly season: Season | null
  /** Scatter of a sample around the whole baseline. */
  readonly sigma: number
  /** What an autocorrelated sample tells besides its neighbour: (1 - rho) / (1 + rho). */
  readonly information: number
}

interface RateBaseline extends RateCurve {
  /** Scatter around the level alone, for samples whose request rate is not known. */
  readonly levelSigma: number
}

/** Of a sample and of the running mean, in standard deviations, for a rise and for a fall (all positive). */
interface Limits {
  readonly rise: number
  readonly fall: number
  readonly meanRise: number
  readonly meanFall: number
}

function summaryOf({ rate, season, sigma, rise }: Baseline): string {
  const parts = [
    rate === null ? 'a level' : `a curve over the request rate with ${nodesOf(rate)} nodes`,
    ...(season === null
      ? []
      : [season.byClock ? 'a daily profile' : `a load cycle of ${season.periodSeconds.toFixed(0)} s`]),
  ]
  const percent = (factor: number): string => `${(100 * (Math.exp(factor * sigma) - 1)).toFixed(0)} %`
  return `${parts.join(' and ')}; scatter ${percent(1)}, one sample may be ${percent(rise)} above`
}

function fitBaseline({ timesSeconds, latenciesMs, requestsPerSecond }: Training): Baseline {
  const n = timesSeconds.length
  const times = Float64Array.from(timesSeconds)
  const leastLatencyMs = Math.max(1e-3, 0.01 * quantileOf(finiteSorted(latenciesMs), 0.5))
  const logs = Float64Array.from(latenciesMs, (latencyMs) => Math.log(Math.max(latencyMs, leastLatencyMs)))
  const steps = Array.from({ length: n - 1 }, (_, i) => times[i + 1]! - times[i]!)
  const stepSeconds = quantileOf(finiteSorted(steps), 0.5)
  const level = quantileOf(finiteSorted(logs), 0.5)
  let residuals: Float64Array = logs.map((log) => log - level)
  const levelSigma = Math.max(MIN_SCATTER, MEAN_ABS_TO_SIGMA * clippedMeanAbs(residuals))

  let rate: { readonly curve: RateCurve; readonly logRates: Float64Array } | null = null
  if (requestsPerSecond !== null && n >= MIN_RATE_SAMPLES && requestsPerSecond.every((value) => value >= 0)) {
    const logRates = Float64Array.from(requestsPerSecond, logRateOf)
    const fit = fitRateCurve({ timesSeconds: times, logLatencies: logs, logRates })
    if (clippedRms(fit.residuals) < MIN_GAIN * clippedRms(residuals)) {
      rate = { curve: fit.curve, logRates }
      residuals = fit.residuals
    }
  }
  const found = findSeason(times, residuals, stepSeconds)
  const season = found?.season ?? null
  if (found !== null) residuals = found.residuals

  const known = Array.from(residuals.keys()).filter((i) => !Number.isNaN(residuals[i]!))
  const left = Float64Array.from(known, (i) => residuals[i]!)
  const magnitudes = finiteSorted(left.map(Math.abs))
  const sigma =
    known.length === 0
      ? levelSigma
      : Math.max(MIN_SCATTER, MAD_TO_SIGMA * quantileOf(magnitudes, 0.5), MEAN_ABS_TO_SIGMA * clippedMeanAbs(left))
  if (rate !== null) rate = { ...rate, curve: withLocalScatter(rate, { known, residuals, sigma }) }
  const sigmaAt = (i: number): number => (rate === null ? sigma : scatterAt(rate.curve, rate.logRates[i]!))
  const rho = clamp(autocorrelationOf(left, OUTLIER_SIGMAS * sigma), 0, MAX_AUTOCORRELATION)
  const { rise, fall, meanRise, meanFall } = calibrate({ known, times, residuals, sigmaAt, stepSeconds })
  return {
    leastLatencyMs,
    stepSeconds,
    level,
    rate: rate === null ? null : { ...rate.curve, levelSigma },
    season,
    sigma,
    information: (1 - rho) / (1 + rho),
    rise,
    fall,
    meanRise,
    meanFall,
  }
}

/** Scatter by node of the curve, from mean absolute residuals, drawn to the overall one. */
function withLocalScatter(
  { curve, logRates }: { readonly curve: RateCurve; readonly logRates: Float64Array },
  {
    known,
    residuals,
    sigma,
  }: { readonly known: readonly number[]; readonly residuals: Float64Array; readonly sigma: number },
): RateCurve {
  const sums = new Float64Array(nodesOf(curve))
  const counts = new Float64Array(nodesOf(curve))
  for (const i of known) {
    const node = nearestNode(curve, logRates[i]!)
    sums[node]! += Math.min(OUTLIER_SIGMAS * sigma, Math.abs(residuals[i]!))
    counts[node]!++
  }
  const sigmas = Array.from(sums, (sum, node) => {
    const shrunk = sum + (SHRINKAGE * sigma) / MEAN_ABS_TO_SIGMA
    return Math.max(MIN_SCATTER, (MEAN_ABS_TO_SIGMA * shrunk) / (counts[node]! + SHRINKAGE))
  })
  return withScatter(curve, sigmas)
}

/** Lag-1 autocorrelation of residuals around 0, each clipped. */
function autocorrelationOf(residuals: Float64Array, limit: number): number {
  let products = 0
  let squares = 0
  for (let i = 1; i < residuals.length; i++) {
    const value = clamp(residuals[i]!, -limit, limit)
    const before = clamp(residuals[i - 1]!, -limit, limit)
    products += value * before
    squares += value * value
  }
  return squares === 0 ? 0 : products / squares
}

/** The limits of a sample and of the running mean: level and mean go over the held-out residuals as they will over the stream. */
function calibrate(options: {
  readonly known: readonly number[]
  readonly times: Float64Array
  readonly residuals: Float64Array
  readonly sigmaAt: (i: number) => number
  readonly stepSeconds: number
}): Limits {
  const { known, times, residuals, sigmaAt, stepSeconds } = options
  const samples = new Float64Array(known.length)
  const means = new Float64Array(known.length)
  let mean = 0
  let level = 0
  let lastSeconds = times[known[0] ?? 0]! - stepSeconds
  known.forEach((i, k) => {
    const elapsedSeconds = times[i]! - lastSeconds
    lastSeconds = times[i]!
    const sigma = sigmaAt(i)
    const residual = residuals[i]! - level
    const z = residual / sigma
    mean += share(elapsedSeconds, MEAN_SECONDS) * (clamp(z, -3, 3) - mean) // bursts of the training do not widen it
    samples[k] = z
    means[k] = mean
    level += share(elapsedSeconds, LEVEL_SECONDS) * clamp(residual, -2 * sigma, 2 * sigma)
    level = clamp(level, -LEVEL_MAX, LEVEL_MAX)
  })
  const exceedance = EXCEEDANCE * Math.min(1, REFERENCE_STEP_SECONDS / stepSeconds)
  const meanSigma = means.length === 0 ? 1 : MAD_TO_SIGMA * quantileOf(finiteSorted(means.map(Math.abs)), 0.5)
  const limitOf = (values: Float64Array, floor: number): number => tailLimit(values, exceedance, floor)
  const fallOf = (values: Float64Array, floor: number): number =>
    DROP_FACTOR *
    limitOf(
      values.map((value) => -value),
      floor,
    )
  const meanFloor = MIN_LIMIT_SIGMAS * Math.max(meanSigma, LEAST_MEAN_SIGMA)
  return {
    rise: limitOf(samples, MIN_LIMIT_SIGMAS),
    fall: fallOf(samples, MIN_LIMIT_SIGMAS),
    meanRise: limitOf(means, meanFloor),
    meanFall: fallOf(means, meanFloor),
  }
}

/** Of the running mean of a flat recording, as if its samples were independent. */
const LEAST_MEAN_SIGMA = 0.3

/** How much of the way an exponential average with this time constant goes in a time. */
function share(elapsedSeconds: number, timeConstantSeconds: number): number {
  return 1 - Math.exp(-elapsedSeconds / timeConstantSeconds)
}

/** What the baseline expects of a sample, before the evidence of those before it. */
interface Expected {
  readonly log: number
  readonly sigma: number
  /** What traffic beyond the training may cost on top. */
  readonly beyond: number
}

// A class, for its size: a mesh has one for each of thousands of edges, and closures would take twice as much.
class LoadAndSeasonWatch implements Watch {
  private readonly baseline: Baseline
  private lastSeconds: number | null = null
  /** Samples that were learnt from. */
  private calmSamples = 0
  /** The running mean of the evidence. */
  private mean = 0
  /** Log latency of the stream on top of the baseline's, where that has no load cycle. */
  private level = 0
  /** Where the stream is in the load cycle of the baseline; null without one. */
  private phases: PhaseBelief | null = null

  constructor(baseline: Baseline) {
    this.baseline = baseline
  }

  judge(observation: Observation): Judgement {
    const { baseline, lastSeconds, mean } = this
    const { stepSeconds, rise: riseLimit, fall: fallLimit, meanRise, meanFall } = baseline
    const { timestampSeconds, latencyMs } = observation
    const elapsedSeconds = lastSeconds === null ? stepSeconds : Math.max(0, timestampSeconds - lastSeconds)
    const settled = settledAt(baseline, observation)
    const { beyond } = settled
    const { mean: moved, variance, level } = this.movedAt(timestampSeconds, elapsedSeconds)
    // Samples after which the stream knows its own level better than the prior does, and what is still unknown of it.
    const priorSamples = priorSamplesOf(baseline)
    const unsure = (LEVEL_PRIOR_SIGMA * LEVEL_PRIOR_SIGMA * priorSamples) / (this.calmSamples + priorSamples)
    const log = settled.log + moved
    const sigma = Math.sqrt(settled.sigma ** 2 + variance + unsure)
    const yhatMs = Math.exp(log)
    const fresh = share(elapsedSeconds, MEAN_SECONDS)
    const { lowerMs, upperMs } = bucketOf(yhatMs)
    const grain = Number.isFinite(upperMs) ? Math.min(0.9, (BUCKET_SHARE * (upperMs - lowerMs)) / yhatMs) : 0
    const inTraining = Math.max(narrowed(riseLimit, meanRise, { mean, fresh }) * sigma, Math.log(1 + grain))
    // Far beyond the training the band ends where latencies do.
    const rise = Math.max(inTraining, Math.min(inTraining + beyond, LOG_MAX_LATENCY - log))
    const fall = Math.max(narrowed(fallLimit, meanFall, { mean: -mean, fresh }) * sigma, -Math.log(1 - grain))
    const yMinMs = Math.exp(log - fall)
    // A training that holds both 0 and the largest latencies has a scatter beyond all numbers.
    const yMaxMs = Math.max(yhatMs, Math.min(MAX_LATENCY_MS, Math.exp(log + rise)))
    const driftRatio = Math.exp(level)
    const beyondTraining = beyond > 0
    if (latencyMs === null) return { yhatMs, yMinMs, yMaxMs, deviation: 0, driftRatio, beyondTraining }

    const latencyLog = Math.log(Math.max(latencyMs, baseline.leastLatencyMs))
    const residual = latencyLog - log
    const z = (residual > 0 ? Math.max(0, residual - beyond) : residual) / sigma
    const evidence = mean + fresh * (clamp(z, -BURST * meanFall, BURST * meanRise) - mean)
    const out = residual >= 0 ? residual / rise : residual / fall
    // Inside the band the deviation also tells how far the evidence has come.
    const deviation =
      residual >= 0
        ? Math.max(out, Math.min(1, evidence / meanRise, 3 * z))
        : Math.min(out, Math.max(-1, evidence / meanFall, 3 * z))
    const result: Judgement = { yhatMs, yMinMs, yMaxMs, deviation, driftRatio, beyondTraining }
    if (lastSeconds !== null && timestampSeconds <= lastSeconds) return result // judged, not learnt from

    this.lastSeconds = timestampSeconds
    this.mean = evidence
    const { phases } = this
    const { season } = baseline
    if (season !== null && phases !== null) driftPhase(phases, season, elapsedSeconds)
    if (Math.abs(out) > 1) return result

    const lot = Math.min(1, elapsedSeconds / stepSeconds)
    const levelGain = Math.max(share(elapsedSeconds, LEVEL_SECONDS), lot / (this.calmSamples + priorSamples))
    const reach = 2 * settled.sigma
    if (season !== null && phases !== null) {
      learnPhase(phases, season, {
        timeSeconds: timestampSeconds,
        log: latencyLog - settled.log,
        sigma: baseline.sigma,
        information: baseline.information * lot,
        levelGain,
        reach,
        levelMax: LEVEL_MAX,
      })
    } else {
      this.level = clamp(level + levelGain * clamp(residual, -reach, reach), -LEVEL_MAX, LEVEL_MAX)
    }
    this.calmSamples += lot
    return result
  }

  /** What the stream's own level and its place in a load cycle add to what is settled. */
  private movedAt(timestampSeconds: number, elapsedSeconds: number): PhaseExpectation {
    const { season } = this.baseline
    if (season === null || season.byClock) return { mean: this.level, variance: 0, level: this.level }
    const sinceTraining = timestampSeconds - season.endSeconds
    if (this.phases === null) {
      const goesOn = sinceTraining > 0 && sinceTraining < season.periodSeconds
      this.phases = goesOn ? trainingsPhase(season) : anyPhase(season, 0)
    } else if (elapsedSeconds > season.periodSeconds) {
      this.phases = anyPhase(season, expectPhase(this.phases, season, timestampSeconds).level)
    }
    return expectPhase(this.phases, season, timestampSeconds)
  }
}

/** The deviation at which a sample would bring the running mean to its limit, within what a sample may do. */
function narrowed(
  limit: number,
  meanLimit: number,
  { mean, fresh }: { readonly mean: number; readonly fresh: number },
): number {
  return fresh > 1e-9 ? clamp((meanLimit - (1 - fresh) * mean) / fresh, NARROWEST * limit, limit) : limit
}

function priorSamplesOf({ sigma, information }: Baseline): number {
  return Math.max(1, (sigma * sigma) / (information * LEVEL_PRIOR_SIGMA * LEVEL_PRIOR_SIGMA))
}

/** Level, traffic and day: all but the load cycle and the stream's own level. */
function settledAt(baseline: Baseline, { timestampSeconds, requestsPerSecond }: Observation): Expected {
  const { rate, season } = baseline
  let log = baseline.level
  let sigma = rate === null ? baseline.sigma : rate.levelSigma
  let beyond = 0
  if (rate !== null && requestsPerSecond !== null) {
    const logRate = logRateOf(requestsPerSecond)
    log = expectedLogLatency(rate, logRate)
    sigma = scatterAt(rate, logRate)
    beyond = beyondTraining(rate, logRate)
  }
  if (season?.byClock === true) log += profileAt(season, timestampSeconds)
  return { log, sigma, beyond }
}

/** The daily profile at a time, on the line between the middles of its phases. */
function profileAt(season: Season, timestampSeconds: number): number {
  const phases = season.profile.length
  const phase = (phaseAt(season, timestampSeconds) - 0.5 + phases) % phases
  const before = Math.floor(phase)
  const at = seasonIn(season, before)
  return at + (phase - before) * (seasonIn(season, (before + 1) % phases) - at)
}
