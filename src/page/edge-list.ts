import type { Pair } from '../core/pair.js'

/** Edges that the page is told of at once; of more there is a search. */
export const MAX_LISTED = 200

/** What they may take of an answer, whatever their names are. */
export const MAX_LIST_BYTES = 64 * 2 ** 10

/** What GET api/edges answers: the hottest of those that were searched for. */
export interface EdgeMatches<E extends Pair> {
  readonly edges: readonly E[]
  readonly leftOut: number
}

const encoder = new TextEncoder()

/** The first items, as many as fit into so many bytes of JSON. */
export function fitting<T>(items: readonly T[], bytes: number): readonly T[] {
  let left = bytes
  const end = items.findIndex((item) => (left -= encoder.encode(JSON.stringify(item)).length + 1) < 0)
  return end === -1 ? items : items.slice(0, end)
}

/** The items with the highest values, the highest first; of equal ones the first. */
export function highest<T>(items: Iterable<T>, most: number, valueOf: (item: T) => number): readonly T[] {
  const sorted = (): T[] => kept.sort((a, b) => valueOf(b) - valueOf(a)).slice(0, most)
  let kept: T[] = []
  let least = -Infinity
  for (const item of items) {
    if (valueOf(item) <= least) continue
    kept.push(item)
    if (kept.length < 2 * most) continue
    kept = sorted()
    const last = kept.at(-1)
    if (last !== undefined) least = valueOf(last)
  }
  return sorted()
}

/** What an edge has to be called to be found: each word of the text is in one of its names, whatever the case. */
export function nameFilter(text: string): (edge: Pair) => boolean {
  const words = text
    .toLowerCase()
    .split(/\s+|->|→/u)
    .filter((word) => word !== '')
  return ({ source, destination }) => {
    if (words.length === 0) return true
    const names = [source.toLowerCase(), destination.toLowerCase()]
    return words.every((word) => names.some((name) => name.includes(word)))
  }
}

/** The hottest of the edges that a text finds, as far as they fit. */
export function matching<T, E extends Pair>(
  edges: Iterable<T>,
  text: string,
  {
    pairOf,
    heatOf,
    shown,
  }: {
    readonly pairOf: (edge: T) => Pair
    readonly heatOf: (edge: T) => number
    readonly shown: (edge: T) => E
  },
): EdgeMatches<E> {
  const isFound = nameFilter(text)
  const found: T[] = []
  for (const edge of edges) if (isFound(pairOf(edge))) found.push(edge)
  const listed = fitting(highest(found, MAX_LISTED, heatOf).map(shown), MAX_LIST_BYTES)
  return { edges: listed, leftOut: found.length - listed.length }
}
