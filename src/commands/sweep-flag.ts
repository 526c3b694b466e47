import { UsageError } from '../core/errors.js'

/** A flag that is to take several values, one after the other. */
export interface Sweep {
  /** The flag, without its dashes. */
  readonly flag: string
  /** As they would be given to it, at least one. */
  readonly values: readonly string[]
}

/** More settings than this are a mistake, or a night's work for nothing. */
export const MAX_SETTINGS = 1_000

export const SWEEP_FORM = 'FLAG=FROM..TO, FLAG=FROM..TO:STEP or FLAG=VALUE,VALUE'

/** `accumulator-threshold=3..10`, `cool-by=1..3:0.5` or `min-deviation-ratio=0,0.1,0.25`, of one of the flags that may be swept. */
export function sweepFlag(sweepable: readonly string[]) {
  return (text: string, name: string): Sweep => {
    const [, named, values] = /^([^=]+)=(.*)$/s.exec(text) ?? []
    if (named === undefined || values === undefined) {
      throw new UsageError(`${name} must be ${SWEEP_FORM}, got ${JSON.stringify(text)}`)
    }
    const flag = named.replace(/^--/, '').replaceAll('_', '-')
    if (!sweepable.includes(flag)) {
      throw new UsageError(`${name} must name one of ${sweepable.join(', ')}, got ${JSON.stringify(named)}`)
    }
    return { flag, values: values.includes('..') ? rangeOf(values, text, name) : listOf(values, text, name) }
  }
}

function listOf(values: string, text: string, name: string): readonly string[] {
  const each = values.split(',').map((value) => value.trim())
  if (each.some((value) => value === '')) {
    throw new UsageError(`${name} must be ${SWEEP_FORM}, got ${JSON.stringify(text)}`)
  }
  if (new Set(each).size < each.length) throw new UsageError(`${name} names a value twice, got ${JSON.stringify(text)}`)
  return each
}

const DECIMAL = String.raw`(\d+(?:\.\d+)?)`
const RANGE = new RegExp(String.raw`^${DECIMAL}\.\.${DECIMAL}(?::${DECIMAL})?$`)

/** Both ends included. */
function rangeOf(values: string, text: string, name: string): readonly string[] {
  const [, fromText, toText, stepText = '1'] = RANGE.exec(values) ?? []
  const [from, to, step] = [Number(fromText), Number(toText), Number(stepText)]
  if (fromText === undefined || !(from <= to) || !(step > 0)) {
    throw new UsageError(
      `${name} must be ${SWEEP_FORM} with FROM up to TO and a positive STEP, got ${JSON.stringify(text)}`,
    )
  }
  const count = Math.floor((to - from) / step + 1e-9) + 1
  if (count > MAX_SETTINGS) {
    throw new UsageError(`${name} must have at most ${MAX_SETTINGS} values, got ${count} in ${JSON.stringify(text)}`)
  }
  // 0.1 + 0.2 is not what anyone would have typed.
  return Array.from({ length: count }, (_, i) => String(Number((from + i * step).toFixed(9))))
}

/**
 * Every combination, the last flag changing fastest.
 *
 * @throws {UsageError} when there are too many, or a flag is swept twice
 */
export function combinations(sweeps: readonly Sweep[], name: string): readonly ReadonlyMap<string, string>[] {
  const flags = sweeps.map(({ flag }) => flag)
  const twice = flags.find((flag, i) => flags.indexOf(flag) !== i)
  if (twice !== undefined) throw new UsageError(`${name} names ${twice} twice`)
  const count = sweeps.reduce((product, { values }) => product * values.length, 1)
  if (count > MAX_SETTINGS) {
    const factors = sweeps.map(({ values }) => values.length).join(' x ')
    throw new UsageError(`${name}: expected at most ${MAX_SETTINGS} settings in all, got ${factors} = ${count}`)
  }
  return sweeps.reduce<readonly ReadonlyMap<string, string>[]>(
    (all, { flag, values }) => all.flatMap((some) => values.map((value) => new Map([...some, [flag, value]]))),
    [new Map()],
  )
}
