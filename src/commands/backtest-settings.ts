import { UsageError } from '../core/errors.js'
import type { IncidentRules } from '../core/incident.js'
import type { RecordedRun } from '../core/recorded-run.js'
import type { ScoringRules } from '../core/score.js'
import { type Flag, type Flags, oneOf, optional, readFlags, repeatable, type Values } from './flags.js'
import { incidentRules, type PairFlag, ruleFlags } from './incident.js'
import { MODELS } from './models.js'
import { scoringFlags, scoringRules } from './monitor.js'
import { combinations, MAX_SETTINGS, SWEEP_FORM, sweepFlag } from './sweep-flag.js'

export type ModelName = (typeof MODELS)[number]['name']

/** One way to detect. */
export interface Setting {
  readonly name: string
  /** Settings of one curve differ in what `label` says, and in nothing else. */
  readonly curve: string
  readonly label: string
  readonly model: ModelName
  readonly scoring: ScoringRules
  readonly rules: IncidentRules
}

/** What may be swept: every number. */
const numberFlags = {
  'min-requests-per-second': scoringFlags['min-requests-per-second'],
  'min-deviation-ms': scoringFlags['min-deviation-ms'],
  'min-deviation-ratio': scoringFlags['min-deviation-ratio'],
  'slo-ms': scoringFlags['slo-ms'],
  ...ruleFlags,
} as const

/** What a setting is made of, besides the model. */
const partFlags = { direction: scoringFlags.direction, ...numberFlags } as const
type Parts = Values<typeof partFlags>

const modelName = oneOf(...MODELS.map(({ name }) => name))

/** Models separated by commas, none twice. */
function modelNames(text: string, name: string): readonly ModelName[] {
  const names = text.split(',').map((part) => modelName(part.trim(), name))
  if (new Set(names).size < names.length)
    throw new UsageError(`${name} names a model twice, got ${JSON.stringify(text)}`)
  return names
}

/** Undefined when the flag is absent: a recorded run has its own defaults. */
function withoutDefaults<F extends Flags>(flags: F): { readonly [K in keyof F]: Flag<Values<F>[K] | undefined> } {
  const read =
    (flag: Flag<unknown>): Flag<unknown>['read'] =>
    (texts, name) =>
      texts.length === 0 ? undefined : flag.read(texts, name)
  const entries = Object.entries(flags).map(([name, flag]) => [name, { ...flag, read: read(flag) }])
  return Object.fromEntries(entries) as { readonly [K in keyof F]: Flag<Values<F>[K] | undefined> }
}

export const settingFlags = {
  model: optional(modelNames, `models to compare, such as ${MODELS[0].name},${MODELS[1].name}`),
  ...withoutDefaults(partFlags),
  sweep: repeatable(
    sweepFlag(Object.keys(numberFlags)),
    `${SWEEP_FORM}: values to try for a flag of the scoring or of the incident rule; of several every combination`,
  ),
} as const

export const AS_RECORDED = 'as recorded'

/**
 * Every setting that is asked for, none twice. Of a recorded run its own comes first, and what is not given is taken from it;
 * combinations that contradict themselves, such as a clear threshold above the incident threshold, are left out.
 *
 * @throws {UsageError} when no setting is left
 */
export function settingsOf(
  values: Values<typeof settingFlags>,
  { pairs, run }: { readonly pairs: readonly PairFlag[]; readonly run: RecordedRun | null },
): { readonly settings: readonly [Setting, ...Setting[]]; readonly contradictions: number } {
  const recorded = run === null ? null : recordedSetting(run)
  const models = values.model ?? [recorded?.model ?? MODELS[0].name]
  const given = Object.keys(partFlags).filter((flag) => values[flag as keyof Parts] !== undefined)
  const own = recorded === null ? readFlags(partFlags, new Map()) : partsOf(recorded)
  const settings: Setting[] = recorded === null ? [] : [recorded]
  const swept = combinations(values.sweep, '--sweep')
  if (models.length * swept.length > MAX_SETTINGS) {
    throw new UsageError(
      `--model and --sweep: expected at most ${MAX_SETTINGS} settings in all, got ${models.length} x ${swept.length} = ${models.length * swept.length}`,
    )
  }
  // A curve goes through the flag with the most values.
  const along = [...values.sweep].sort((a, b) => b.values.length - a.values.length)[0]?.flag
  let refused: UsageError | undefined
  let contradictions = 0
  for (const model of models) {
    for (const combination of swept) {
      const varied = [...combination].map(([flag, text]) => ({ flag: flag as keyof typeof numberFlags, text }))
      const parts: Parts = {
        ...own,
        ...Object.fromEntries(given.map((flag) => [flag, values[flag as keyof Parts]])),
        ...Object.fromEntries(
          varied.map(({ flag, text }) => [flag, numberFlags[flag].read([text], `--sweep ${flag}`)]),
        ),
      }
      // A threshold that is given or swept is every pair's; one written into --pair stays that pair's.
      const threshold = given.includes('accumulator-threshold') || combination.has('accumulator-threshold')
      const watched =
        run !== null && threshold ? pairs.map((pair) => ({ ...pair, accumulatorThreshold: undefined })) : pairs
      let rules: IncidentRules
      try {
        rules = incidentRules(parts, watched)
      } catch (error) {
        if (!(error instanceof UsageError) || combination.size === 0) throw error
        refused ??= error
        contradictions++
        continue
      }
      const fixed = [
        ...(models.length > 1 || (recorded !== null && model !== recorded.model) ? [model] : []),
        ...(recorded === null ? [] : given.map((flag) => `${flag} ${values[flag as keyof Parts] ?? ''}`)),
      ]
      const named = [
        ...fixed.map((text) => ({ flag: '', text })),
        ...varied.map(({ flag, text }) => ({ flag, text: `${flag} ${text}` })),
      ]
      const labelling = named.find(({ flag }) => flag === along) ?? named.at(-1)
      const joined = (parts: readonly { readonly text: string }[]): string => parts.map(({ text }) => text).join(', ')
      const setting: Setting = {
        name: named.length === 0 ? model : joined(named),
        curve: joined(named.filter((part) => part !== labelling)),
        label: labelling?.text ?? model,
        model,
        scoring: scoringRules({ ...parts, model, quantile: undefined }),
        rules,
      }
      if (!settings.some((other) => sameSetting(other, setting))) settings.push(setting)
    }
  }
  const [first, ...others] = settings
  if (first === undefined) throw refused ?? new UsageError('--sweep leaves no setting')
  return { settings: [first, ...others], contradictions }
}

function sameSetting(a: Setting, b: Setting): boolean {
  const key = ({ model, scoring, rules }: Setting): string => JSON.stringify([model, scoring, rules])
  return key(a) === key(b)
}

function recordedSetting({ model, scoring, rules }: RecordedRun): Setting {
  return {
    name: AS_RECORDED,
    curve: AS_RECORDED,
    label: AS_RECORDED,
    model: modelName(model, '--run: model'),
    scoring,
    rules,
  }
}

function partsOf({ scoring, rules }: Setting): Parts {
  return {
    direction: scoring.direction,
    'min-requests-per-second': scoring.minRequestsPerSecond,
    'min-deviation-ms': scoring.minDeviationMs,
    'min-deviation-ratio': scoring.minDeviationRatio,
    'slo-ms': scoring.sloMs ?? undefined,
    'incident-threshold': rules.incidentThreshold,
    'clear-threshold': rules.clearThreshold,
    // Each pair of a recorded run has its own.
    'accumulator-threshold': rules.pairs[0]?.accumulatorThreshold ?? 0,
    'accumulator-max': rules.accumulatorMax,
    'cool-by': rules.coolBy,
    'no-data-timeout-seconds': rules.noDataTimeoutSeconds,
  }
}
