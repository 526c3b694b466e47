/** Draws from [0, 1). */
export type Random = () => number

/**
 * The generator mulberry32 (Tommy Ettinger, 2017, public domain): 32 bits of state, passes gjrand, and fast. Good enough to
 * draw service times and tasks; not for secrets.
 *
 * @param seed - any integer; only its lowest 32 bits count
 */
export function seededRandom(seed: number): Random {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * A seed of its own for each named part, so that one part's draws do not depend on how often another draws. FNV-1a, 32 bits.
 */
export function seedFor(seed: number, name: string): number {
  let hash = 0x811c9dc5 ^ seed
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash | 0
}

/** A lognormal variate by Box and Muller's transform (Annals of Mathematical Statistics 29, 1958). */
export function lognormal(
  random: Random,
  { median, sigma }: { readonly median: number; readonly sigma: number },
): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  return median * Math.exp(sigma * normal)
}

/** One of the items, with a chance in proportion to its weight. @param items - at least one, weights positive */
export function pickWeighted<T extends { readonly weight: number }>(random: Random, items: readonly T[]): T {
  let left = random() * items.reduce((sum, { weight }) => sum + weight, 0)
  const found = items.find(({ weight }) => (left -= weight) < 0) ?? items.at(-1)
  if (found === undefined) throw new RangeError('there is nothing to pick from')
  return found
}
