import { bucketOf } from '../istio-buckets.js'
import { MAX_LATENCY_MS } from '../reading.js'
import { createModel, type Judgement, type Model, type Observation, type Training, type Watch } from './model.js'
import { type PhaseExpectation, type PhaseTracker, trackPhase } from './phase-tracker.js'
import {
  beyondTraining,
  expectedLogLatency,
  fitRateCurve,
  logRateOf,
  nearestNode,
  type RateCurve,
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
import { findSeason, MIN_GAIN, phaseAt, type Season } from './season.js'
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
  fittedFrom: (baseline) => ({ summary: summaryOf(baseline), watch: () => createWatch(baseline) }),
})

/** Limits in standard deviations, for a rise and for a fall (both positive). */
interface Limits {
  readonly rise: number
  readonly fall: number
}

interface Baseline {
  /** Log latencies below this are all alike; it keeps the logarithm of 0 away. */
  readonly leastLatencyMs: number
  readonly stepSeconds: number
  readonly endSeconds: number
  /** Median log latency. */
  readonly level: number
  /** Scatter around the level alone, for samples whose request rate is not known. */
  readonly levelSigma: number
  readonly rate: { readonly curve: RateCurve; readonly sigmas: readonly number[] | null } | null
  readonly season: { readonly season: Season; readonly sigmas: Float64Array | null } | null
  /** Scatter of a sample around the whole baseline. */
  readonly sigma: number
  /** What an autocorrelated sample tells besides its neighbour: (1 - rho) / (1 + rho). */
  readonly information: number
  /** Samples after which the stream knows its own level better than the prior does. */
  readonly priorSamples: number
  readonly sampleLimits: Limits
  readonly meanLimits: Limits
}

function summaryOf({ rate, season, sigma, sampleLimits }: Baseline): string {
  const parts = [
    rate === null ? 'a level' : `a curve over the request rate with ${rate.curve.logRates.length} nodes`,
    ...(season === null
      ? []
      : [season.season.byClock ? 'a daily profile' : `a load cycle of ${season.season.periodSeconds.toFixed(0)} s`]),
  ]
  const percent = (factor: number): string => `${(100 * (Math.exp(factor * sigma) - 1)).toFixed(0)} %`
  return `${parts.join(' and ')}; scatter ${percent(1)}, one sample may be ${percent(sampleLimits.rise)} above`
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

  let curve: RateCurve | null = null
  let logRates: Float64Array | null = null
  if (requestsPerSecond !== null && n >= MIN_RATE_SAMPLES && requestsPerSecond.every((rate) => rate >= 0)) {
    const rates = Float64Array.from(requestsPerSecond, logRateOf)
    const fit = fitRateCurve({ timesSeconds: times, logLatencies: logs, logRates: rates })
    if (clippedRms(fit.residuals) < MIN_GAIN * clippedRms(residuals)) {
      curve = fit.curve
      logRates = rates
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
  const phaseOf = (i: number): number => Math.floor(season === null ? 0 : phaseAt(season, times[i]! + 1e-6))
  const cycleSigmas =
    season === null || season.byClock
      ? null
      : localSigmas(known, residuals, {
          sigma,
          groups: season.profile.length,
          groupOf: phaseOf,
          reach: Math.max(1, Math.round(season.profile.length / 24)),
        })
  const rateSigmas =
    curve === null || logRates === null || cycleSigmas !== null
      ? null
      : localSigmas(known, residuals, {
          sigma,
          groups: curve.logRates.length,
          groupOf: (
            (rates, nodes) => (i: number) =>
              nearestNode(nodes, rates[i]!)
          )(logRates, curve),
          reach: 0,
        })
  const sigmaAt = (i: number): number =>
    cycleSigmas !== null
      ? cycleSigmas[phaseOf(i)]!
      : rateSigmas !== null && curve !== null && logRates !== null
        ? rateSigmas[nearestNode(curve, logRates[i]!)]!
        : sigma
  const rho = clamp(autocorrelationOf(left, OUTLIER_SIGMAS * sigma), 0, MAX_AUTOCORRELATION)
  const information = (1 - rho) / (1 + rho)
  return {
    leastLatencyMs,
    stepSeconds,
    endSeconds: times[n - 1]!,
    level,
    levelSigma,
    rate: curve === null ? null : { curve, sigmas: rateSigmas === null ? null : Array.from(rateSigmas) },
    season: season === null ? null : { season, sigmas: cycleSigmas },
    sigma,
    information,
    priorSamples: Math.max(1, (sigma * sigma) / (information * LEVEL_PRIOR_SIGMA * LEVEL_PRIOR_SIGMA)),
    ...calibrate({ known, times, residuals, sigmaAt, stepSeconds }),
  }
}

/** Scatter by group, from mean absolute residuals within `reach` groups (circular), drawn to the overall one. */
function localSigmas(
  known: readonly number[],
  residuals: Float64Array,
  options: {
    readonly sigma: number
    readonly groups: number
    readonly groupOf: (i: number) => number
    readonly reach: number
  },
): Float64Array {
  const { sigma, groups, groupOf, reach } = options
  const sums = new Float64Array(groups)
  const counts = new Float64Array(groups)
  for (const i of known) {
    const group = groupOf(i)
    sums[group]! += Math.min(OUTLIER_SIGMAS * sigma, Math.abs(residuals[i]!))
    counts[group]!++
  }
  return sums.map((_, group) => {
    let sum = 0
    let count = 0
    for (let d = -reach; d <= reach; d++) {
      const neighbour = (group + d + groups) % groups
      sum += sums[neighbour]!
      count += counts[neighbour]!
    }
    const shrunk = sum + (SHRINKAGE * sigma) / MEAN_ABS_TO_SIGMA
    return Math.max(MIN_SCATTER, (MEAN_ABS_TO_SIGMA * shrunk) / (count + SHRINKAGE))
  })
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
}): { readonly sampleLimits: Limits; readonly meanLimits: Limits } {
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
  const limits = (values: Float64Array, floor: number): Limits => ({
    rise: tailLimit(values, exceedance, floor),
    fall:
      DROP_FACTOR *
      tailLimit(
        values.map((value) => -value),
        exceedance,
        floor,
      ),
  })
  return {
    sampleLimits: limits(samples, MIN_LIMIT_SIGMAS),
    meanLimits: limits(means, MIN_LIMIT_SIGMAS * Math.max(meanSigma, LEAST_MEAN_SIGMA)),
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
  /** The followed level that is part of `log`. */
  readonly level: number
}

// One closure with few variables, and the rest outside of it: a mesh has a watch for each of thousands of edges.
function createWatch(baseline: Baseline): Watch {
  const { season, sampleLimits, meanLimits, stepSeconds, priorSamples } = baseline
  let lastSeconds: number | null = null
  let calmSamples = 0
  let mean = 0
  let level = 0
  let tracker: PhaseTracker | null = null

  return {
    judge: (observation) => {
      const { timestampSeconds, latencyMs } = observation
      const elapsedSeconds = lastSeconds === null ? stepSeconds : Math.max(0, timestampSeconds - lastSeconds)
      const base = settled(baseline, observation)
      if (season !== null && !season.season.byClock) {
        tracker ??= trackerFrom(baseline, season, timestampSeconds)
        if (elapsedSeconds > season.season.periodSeconds) tracker.forget()
      }
      // What is still unknown of the stream's own level.
      const unsure = (LEVEL_PRIOR_SIGMA * LEVEL_PRIOR_SIGMA * priorSamples) / (calmSamples + priorSamples)
      const expected =
        tracker === null
          ? { ...base, log: base.log + level, sigma: Math.sqrt(base.sigma ** 2 + unsure), level }
          : inCycle(base, tracker.expect(timestampSeconds), unsure)
      const { log, sigma, beyond } = expected
      const yhatMs = Math.exp(log)
      const fresh = share(elapsedSeconds, MEAN_SECONDS)
      /** The deviation at which this sample would bring the running mean to its limit, within what a sample may do. */
      const narrowed = (limit: number, meanLimit: number, towards: number): number =>
        fresh > 1e-9 ? clamp((meanLimit - (1 - fresh) * towards) / fresh, NARROWEST * limit, limit) : limit
      const { lowerMs, upperMs } = bucketOf(yhatMs)
      const grain = Number.isFinite(upperMs) ? Math.min(0.9, (BUCKET_SHARE * (upperMs - lowerMs)) / yhatMs) : 0
      const inTraining = Math.max(narrowed(sampleLimits.rise, meanLimits.rise, mean) * sigma, Math.log(1 + grain))
      // Far beyond the training the band ends where latencies do.
      const rise = Math.max(inTraining, Math.min(inTraining + beyond, LOG_MAX_LATENCY - log))
      const fall = Math.max(narrowed(sampleLimits.fall, meanLimits.fall, -mean) * sigma, -Math.log(1 - grain))
      const judgement = (deviation: number): Judgement => ({
        yhatMs,
        yMinMs: Math.exp(log - fall),
        // A training that holds both 0 and the largest latencies has a scatter beyond all numbers.
        yMaxMs: Math.max(yhatMs, Math.min(MAX_LATENCY_MS, Math.exp(log + rise))),
        deviation,
        driftRatio: Math.exp(expected.level),
        beyondTraining: beyond > 0,
      })
      if (latencyMs === null) return judgement(0)

      const latencyLog = Math.log(Math.max(latencyMs, baseline.leastLatencyMs))
      const residual = latencyLog - log
      const z = (residual > 0 ? Math.max(0, residual - beyond) : residual) / sigma
      const evidence = mean + fresh * (clamp(z, -BURST * meanLimits.fall, BURST * meanLimits.rise) - mean)
      const out = residual >= 0 ? residual / rise : residual / fall
      const result = judgement(
        // Inside the band the deviation also tells how far the evidence has come.
        residual >= 0
          ? Math.max(out, Math.min(1, evidence / meanLimits.rise, 3 * z))
          : Math.min(out, Math.max(-1, evidence / meanLimits.fall, 3 * z)),
      )
      if (lastSeconds !== null && timestampSeconds <= lastSeconds) return result // judged, not learnt from

      lastSeconds = timestampSeconds
      mean = evidence
      const calm = Math.abs(out) <= 1
      const lot = Math.min(1, elapsedSeconds / stepSeconds)
      const gain = Math.max(share(elapsedSeconds, LEVEL_SECONDS), lot / (calmSamples + priorSamples))
      if (tracker !== null) {
        tracker.advance({
          timeSeconds: timestampSeconds,
          elapsedSeconds,
          calm: calm ? latencyLog - base.log : null,
          information: baseline.information * lot,
          levelGain: gain,
        })
      } else if (calm) {
        const reach = 2 * base.sigma
        level = clamp(level + gain * clamp(residual, -reach, reach), -LEVEL_MAX, LEVEL_MAX)
      }
      if (calm) calmSamples += lot
      return result
    },
  }
}

/** Level, traffic and day: all but the load cycle. */
function settled(baseline: Baseline, { timestampSeconds, requestsPerSecond }: Observation): Omit<Expected, 'level'> {
  const { rate, season } = baseline
  let log = baseline.level
  let sigma = rate === null ? baseline.sigma : baseline.levelSigma
  let beyond = 0
  if (rate !== null && requestsPerSecond !== null) {
    const logRate = logRateOf(requestsPerSecond)
    log = expectedLogLatency(rate.curve, logRate)
    sigma = rate.sigmas === null ? baseline.sigma : rate.sigmas[nearestNode(rate.curve, logRate)]!
    beyond = beyondTraining(rate.curve, logRate)
  }
  if (season?.season.byClock === true) log += profileAt(season.season, timestampSeconds)
  return { log, sigma, beyond }
}

function trackerFrom(
  { sigma, endSeconds }: Baseline,
  { season, sigmas }: NonNullable<Baseline['season']>,
  timestampSeconds: number,
): PhaseTracker {
  const sinceTraining = timestampSeconds - endSeconds
  return trackPhase(
    season,
    { local: sigmas ?? new Float64Array(season.profile.length).fill(sigma), overall: sigma },
    { continuesTraining: sinceTraining > 0 && sinceTraining < season.periodSeconds, levelMax: LEVEL_MAX },
  )
}

function inCycle(base: Omit<Expected, 'level'>, phases: PhaseExpectation, unsure: number): Expected {
  const { mean, level, variance, sigma } = phases
  return { ...base, log: base.log + mean, sigma: Math.sqrt(sigma ** 2 + variance + unsure), level }
}

/** The daily profile at a time, on the line between the middles of its phases. */
function profileAt(season: Season, timestampSeconds: number): number {
  const phases = season.profile.length
  const phase = (phaseAt(season, timestampSeconds) - 0.5 + phases) % phases
  const before = Math.floor(phase)
  const at = season.profile[before]!
  return at + (phase - before) * (season.profile[(before + 1) % phases]! - at)
}
