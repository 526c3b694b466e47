import { type Fitted, trainingOf } from '../core/baseline/model.js'
import { UsageError } from '../core/errors.js'
import type { Recording } from '../core/recording.js'
import type { Watches } from '../core/score.js'
import { modelNamed, type MODELS } from '../io/models.js'

export { MODELS } from '../io/models.js'

/** One fitted baseline for each scored quantile, in order. */
export type Baselines = ReadonlyMap<number, Fitted>

/** The quantile of a recording that does not say which it holds. */
export const UNLABELLED_QUANTILE = 0.5

/**
 * Fits a baseline for each quantile that is scored: those asked for, else those that the recording holds.
 *
 * @param what - names the file, for messages
 * @throws {UsageError} when a quantile asked for is not in the recording
 * @throws {RecordingError} when a series cannot be trained on
 */
export function fitBaselines(
  recording: Recording,
  options: {
    readonly model: (typeof MODELS)[number]['name']
    readonly quantiles: readonly number[]
    readonly what: string
  },
): Baselines | Promise<Baselines> {
  const { what } = options
  const model = modelNamed(options.model)
  const only = recording.series.length === 1 ? recording.series[0] : undefined
  const fallback = options.quantiles.length === 1 ? options.quantiles[0] : UNLABELLED_QUANTILE
  const held = new Map(recording.series.map((series) => [series.quantile ?? fallback ?? UNLABELLED_QUANTILE, series]))
  const scored = options.quantiles.length === 0 ? [...held.keys()] : options.quantiles
  const fits = scored.map((quantile) => {
    const series = held.get(quantile)
    if (series === undefined) {
      const holds = only?.quantile === null ? 'one unlabelled quantile' : `the quantiles ${[...held.keys()].join(', ')}`
      throw new UsageError(`--quantile ${quantile} is not in ${what}, which holds ${holds}`)
    }
    return [quantile, model.fit(trainingOf(series, model, what))] as const
  })
  const done = fits.flatMap(([quantile, fit]) => (fit instanceof Promise ? [] : [[quantile, fit] as const]))
  if (done.length === fits.length) return new Map(done)
  const fitting = Promise.all(fits.map(async ([quantile, fit]) => [quantile, await fit] as const)).then(
    (all) => new Map(all),
  )
  // Whoever waits for it hears of a failure; one that comes before anyone waits must not end the process.
  fitting.catch(() => undefined)
  return fitting
}

/** A watch on each baseline, for one stream. */
export function watchesOf(baselines: Baselines): Watches {
  return [...baselines].map(([quantile, fitted]) => ({ quantile, watch: fitted.watch() }))
}
