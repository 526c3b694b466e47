import { clamp, clippedMeanAbs, finiteSorted, quantileOf } from './robust-error.js'

export const DAY_SECONDS = 86_400

/** A richer baseline must bring the cross-fitted error down to this share, or the simpler one stays. */
export const MIN_GAIN = 0.9

/** A recording of this much of a day shows the day. */
const DAY_SEEN = 0.9
const DAY_PHASES = 96 // a quarter of an hour each
const DAY_SMOOTHING = [4, 8, 12]
const DAY_HOLDOUT_SECONDS = 3_600

/** More do not find more, and take longer. */
const MAX_CYCLE_PHASES = 56
const MIN_CYCLE_PHASES = 8
const CYCLE_SMOOTHING = [0, 1, 2, 4]

/** A period this close to a day is the day's business. */
const LONGEST_CYCLE_SECONDS = 0.8 * DAY_SECONDS

/** The smallest peak of the autocorrelation that is worth trying as a cycle. */
const MIN_AUTOCORRELATION = 0.4
/** A lag needs 35 % of the recording as overlap. */
const LONGEST_LAG = 0.65
const MAX_GRID = 1_500
const MIN_GRID = 24

/** A season must be able to predict this share of the samples from others. */
const MIN_PREDICTED = 0.3

/** Residuals that recur with a period. Phase 0 is at `originSeconds`. */
export interface Season {
  readonly periodSeconds: number
  readonly originSeconds: number
  /** When the recording ended that it was found in. */
  readonly endSeconds: number
  /** True for the day: its phase is the time of day. False for a load cycle, whose phase has to be found in the stream. */
  readonly byClock: boolean
  /** Expected log latency on top of the rest of the baseline, one per phase, in `unit`s: a mesh keeps thousands of profiles. */
  readonly profile: Int16Array
  readonly unit: number
}

export interface SeasonFit {
  readonly season: Season
  /** Log latency minus what samples more than the hold-out away predict for it; NaN where none do. */
  readonly residuals: Float64Array
}

interface Candidate {
  readonly periodSeconds: number
  readonly phases: number
  readonly byClock: boolean
  readonly holdoutSeconds: number
  /** Half widths of the moving average over phases to try. */
  readonly smoothing: readonly number[]
}

/**
 * The season in log latencies (level or rate curve taken off): the day by the clock, a load cycle of its own length, or null
 * when neither predicts the recording better than none.
 *
 * @param timesSeconds - strictly rising
 * @param stepSeconds - usual distance of two samples
 */
export function findSeason(timesSeconds: Float64Array, residuals: Float64Array, stepSeconds: number): SeasonFit | null {
  const n = timesSeconds.length
  const span = timesSeconds[n - 1]! - timesSeconds[0]!
  const known = residuals.map((value) => (Number.isNaN(value) ? 0 : value))
  const candidates: Candidate[] = []
  if (span >= DAY_SEEN * DAY_SECONDS) {
    candidates.push({
      periodSeconds: DAY_SECONDS,
      phases: DAY_PHASES,
      byClock: true,
      holdoutSeconds: DAY_HOLDOUT_SECONDS,
      smoothing: DAY_SMOOTHING,
    })
  }
  for (const { periodSeconds, phases } of findCycles(timesSeconds, known, stepSeconds)) {
    if (periodSeconds >= LONGEST_CYCLE_SECONDS) continue
    candidates.push({
      periodSeconds,
      phases,
      byClock: false,
      holdoutSeconds: periodSeconds / 2,
      smoothing: CYCLE_SMOOTHING.filter((width) => width < phases / 8),
    })
  }
  const sorted = finiteSorted(known)
  const clipped = clippedTo(known, quantileOf(sorted, 0.005), quantileOf(sorted, 0.995))
  let best: (SeasonFit & { readonly error: number }) | null = null
  for (const candidate of candidates) {
    for (const width of candidate.smoothing) {
      const { profile, residuals: predicted } = fitProfile(timesSeconds, clipped, { ...candidate, width })
      const left = predicted.map((value, i) => value + known[i]! - clipped[i]!)
      const seen = left.filter((value) => !Number.isNaN(value)).length
      const error = clippedMeanAbs(left)
      const plain = clippedMeanAbs(known.filter((_, i) => !Number.isNaN(left[i]!)))
      if (seen <= MIN_PREDICTED * n || error >= MIN_GAIN * plain) continue
      // A multiple of a cycle predicts as well as the cycle and takes longer to find in the stream.
      const multiple =
        best !== null && !best.season.byClock && candidate.periodSeconds > 1.5 * best.season.periodSeconds
      if (best !== null && error >= best.error * (multiple ? 0.95 : 1)) continue
      best = {
        season: {
          periodSeconds: candidate.periodSeconds,
          originSeconds: timesSeconds[0]!,
          endSeconds: timesSeconds[n - 1]!,
          byClock: candidate.byClock,
          ...inUnits(profile),
        },
        residuals: left,
        error,
      }
    }
  }
  return best
}

/** The phase, in [0, number of phases), that a time lies in. */
export function phaseAt({ periodSeconds, originSeconds, profile }: Season, timeSeconds: number): number {
  const phases = profile.length
  const phase = (((timeSeconds - originSeconds) / periodSeconds) * phases) % phases
  return phase < 0 ? phase + phases : phase
}

/** What the season adds to the expected log latency in a phase. */
export function seasonIn({ profile, unit }: Season, phase: number): number {
  return unit * profile[phase]!
}

/** The unit is a 65,536th of the range, or less. */
function inUnits(profile: Float64Array): Pick<Season, 'profile' | 'unit'> {
  const largest = profile.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const unit = largest / 0x7fff || 1
  return { profile: Int16Array.from(profile, (value) => Math.round(value / unit)), unit }
}

function clippedTo(values: Float64Array, low: number, high: number): Float64Array {
  return values.map((value) => clamp(value, low, high))
}

/**
 * A circular profile, moving average over +-width phases, and for every sample its residual against the profile of all
 * samples that are more than the hold-out away from it.
 */
function fitProfile(
  timesSeconds: Float64Array,
  values: Float64Array,
  options: {
    readonly periodSeconds: number
    readonly phases: number
    readonly width: number
    readonly holdoutSeconds: number
  },
): { readonly profile: Float64Array; readonly residuals: Float64Array } {
  const { phases, width } = options
  const phaseSeconds = options.periodSeconds / phases
  const holdout = Math.min(width, Math.ceil(options.holdoutSeconds / phaseSeconds))
  // Cells count phases through the whole recording; a phase is a cell modulo the period. Only those with samples are held: a gap
  // of years, or one time that is wrong, would make billions of them.
  const cells = timesSeconds.map((time) => Math.floor((time - timesSeconds[0]!) / phaseSeconds + 1e-9))
  const held = heldCells(cells, values)
  const phaseSums = new Float64Array(phases)
  const phaseCounts = new Float64Array(phases)
  for (let i = 0; i < values.length; i++) {
    const phase = cells[i]! % phases
    phaseSums[phase]! += values[i]!
    phaseCounts[phase]!++
  }
  const sums = new Float64Array(phases)
  const counts = new Float64Array(phases)
  for (let phase = 0; phase < phases; phase++) {
    for (let d = -width; d <= width; d++) {
      const neighbour = (phase + d + phases) % phases
      sums[phase]! += phaseSums[neighbour]!
      counts[phase]! += phaseCounts[neighbour]!
    }
  }
  const residuals = new Float64Array(values.length)
  let from = 0
  let to = 0
  for (let i = 0; i < values.length; i++) {
    const cell = cells[i]!
    const phase = cell % phases
    while (held.cells[from]! < cell - holdout) from++
    while (to < held.cells.length && held.cells[to]! <= cell + holdout) to++
    const others = counts[phase]! - (held.countsBefore[to]! - held.countsBefore[from]!)
    const otherSum = sums[phase]! - (held.sumsBefore[to]! - held.sumsBefore[from]!)
    residuals[i] = others > 0.5 ? values[i]! - otherSum / others : NaN
  }
  return { profile: profileOf(sums, counts), residuals }
}

/** The cells that hold samples, rising, with how many samples lie in those before each, and after the last, and their sum. */
function heldCells(
  cellOf: Float64Array,
  values: Float64Array,
): {
  readonly cells: readonly number[]
  readonly sumsBefore: readonly number[]
  readonly countsBefore: readonly number[]
} {
  const cells: number[] = []
  const sumsBefore = [0]
  const countsBefore = [0]
  for (let i = 0; i < values.length;) {
    const cell = cellOf[i]!
    let sum = 0
    let count = 0
    do {
      sum += values[i]!
      count++
      i++
    } while (i < values.length && cellOf[i] === cell)
    cells.push(cell)
    sumsBefore.push(sumsBefore.at(-1)! + sum)
    countsBefore.push(countsBefore.at(-1)! + count)
  }
  return { cells, sumsBefore, countsBefore }
}

/** Means; phases that were never seen lie on the line between their neighbours. */
function profileOf(sums: Float64Array, counts: Float64Array): Float64Array {
  const phases = sums.length
  return sums.map((sum, phase) => {
    if (counts[phase]! > 0) return sum / counts[phase]!
    let after = 1
    let before = 1
    while (after < phases && counts[(phase + after) % phases] === 0) after++
    while (before < phases && counts[(phase - before + phases) % phases] === 0) before++
    const left = (phase - before + phases) % phases
    const right = (phase + after) % phases
    return ((after * sums[left]!) / counts[left]! + (before * sums[right]!) / counts[right]!) / (after + before)
  })
}

interface Cycle {
  readonly periodSeconds: number
  readonly phases: number
}

/** Up to three candidates for a load cycle: clear peaks of the autocorrelation, refined on their multiples and by prediction. */
function findCycles(timesSeconds: Float64Array, values: Float64Array, stepSeconds: number): readonly Cycle[] {
  const n = timesSeconds.length
  const endSeconds = timesSeconds[n - 1]!
  const from = timesSeconds.findIndex((time) => time >= endSeconds - DAY_SECONDS) // the last day is enough
  const span = endSeconds - timesSeconds[from]!
  const cellSeconds = Math.max(stepSeconds, span / MAX_GRID)
  const cells = Math.floor(span / cellSeconds) + 1
  const sorted = finiteSorted(values)
  const low = quantileOf(sorted, 0.02)
  const high = quantileOf(sorted, 0.98)
  if (cells < MIN_GRID || high - low < 1e-9) return []
  const clipped = clippedTo(values, low, high)
  const grid = new Float64Array(cells).fill(NaN)
  for (let i = from; i < n; i++) {
    grid[Math.min(cells - 1, Math.round((timesSeconds[i]! - timesSeconds[from]!) / cellSeconds))] = clipped[i]!
  }
  const longest = Math.floor(cells * LONGEST_LAG)
  const correlation = autocorrelation(grid, longest)
  const peaks = peaksOf(correlation)
  const highest = peaks.reduce((best, lag) => Math.max(best, correlation[lag]!), 0)
  if (highest <= MIN_AUTOCORRELATION) return []
  return peaks
    .filter((lag) => correlation[lag]! >= 0.7 * highest)
    .slice(0, 3)
    .map((lag) => {
      const guessSeconds = onMultiples(correlation, lag) * cellSeconds
      const phases = clamp(Math.round(guessSeconds / stepSeconds), MIN_CYCLE_PHASES, MAX_CYCLE_PHASES)
      let periodSeconds = guessSeconds
      for (const start of from > 0 ? [from, 0] : [0]) {
        periodSeconds = refinePeriod(timesSeconds.subarray(start), clipped.subarray(start), { periodSeconds, phases })
      }
      return { periodSeconds, phases }
    })
}

/** Pearson's correlation of the grid with itself, for each lag from 0 to `longest`; NaN cells are left out. */
function autocorrelation(grid: Float64Array, longest: number): Float64Array {
  const found = new Float64Array(longest + 1)
  for (let lag = 0; lag <= longest; lag++) {
    let k = 0
    let a = 0
    let b = 0
    let aa = 0
    let bb = 0
    let ab = 0
    for (let i = 0; i + lag < grid.length; i++) {
      const u = grid[i]!
      const v = grid[i + lag]!
      if (Number.isNaN(u) || Number.isNaN(v)) continue
      k++
      a += u
      b += v
      aa += u * u
      bb += v * v
      ab += u * v
    }
    const va = aa - (a * a) / k
    const vb = bb - (b * b) / k
    found[lag] = k > 10 && va > 0 && vb > 0 ? (ab - (a * b) / k) / Math.sqrt(va * vb) : 0
  }
  return found
}

function peaksOf(correlation: Float64Array): readonly number[] {
  const last = correlation.length - 1
  let start = 1
  while (start <= last && correlation[start]! > 0.2) start++ // leave the central peak
  const peaks: number[] = []
  for (let lag = Math.max(start, MIN_CYCLE_PHASES); lag < last; lag++) {
    const around = correlation.subarray(lag - 3, lag + 4)
    if (around.every((value) => value <= correlation[lag]!)) peaks.push(lag)
  }
  return peaks
}

/** A peak's lag, made precise on the peaks near its multiples. */
function onMultiples(correlation: Float64Array, lag: number): number {
  const last = correlation.length - 1
  const reach = Math.max(1, Math.round(lag * 0.06))
  let period = lag
  for (let multiple = 2; multiple * period <= last; multiple++) {
    const middle = Math.round(multiple * period)
    let top = middle
    for (let k = middle - reach; k <= Math.min(last, middle + reach); k++) {
      if (correlation[k]! > correlation[top]!) top = k
    }
    period = top / multiple
  }
  return period
}

/** The period, within +-6 phases over the recording, whose profile predicts the recording best. */
function refinePeriod(timesSeconds: Float64Array, values: Float64Array, { periodSeconds, phases }: Cycle): number {
  const span = timesSeconds[timesSeconds.length - 1]! - timesSeconds[0]!
  const stepSeconds = (periodSeconds * periodSeconds) / (phases * span)
  let best = periodSeconds
  let least = Infinity
  for (let k = -6; k <= 6; k++) {
    const candidate = periodSeconds + k * stepSeconds
    const fit = fitProfile(timesSeconds, values, {
      periodSeconds: candidate,
      phases,
      width: 1,
      holdoutSeconds: periodSeconds / 2,
    })
    const predicted = fit.residuals.filter((value) => !Number.isNaN(value))
    const error = predicted.reduce((sum, value) => sum + Math.abs(value), 0) / predicted.length
    if (predicted.length > MIN_PREDICTED * timesSeconds.length && error < least) {
      least = error
      best = candidate
    }
  }
  return best
}
