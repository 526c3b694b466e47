import { type Pair, pairKey } from './pair.js'

/** Of the 255 bytes that file systems allow, so many are left for an ending. */
const MAX_STEM = 200

/**
 * A file name for each pair, by `pairKey`: source-destination.json. What a file system or a shell could mistake is written
 * as %XX; where two pairs would share a name, on a file system that ignores case, too, the later has a number.
 */
export function pairFileNames(pairs: readonly Pair[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  const taken = new Set<string>()
  const inOrder = pairs.map((pair) => ({ pair, key: pairKey(pair) })).sort((a, b) => (a.key < b.key ? -1 : 1))
  for (const { pair, key } of inOrder) {
    const stem = `${escaped(pair.source)}-${escaped(pair.destination)}`.slice(0, MAX_STEM)
    let name = stem
    for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${stem}~${number}`
    taken.add(name.toLowerCase())
    names.set(key, `${name}.json`)
  }
  return names
}

/** Letters, digits and `_ . -` as they are, but no dot in front: that would hide the file, or leave the folder. */
function escaped(name: string): string {
  const wellFormed = name.replace(/\p{Surrogate}/gu, '\uFFFD')
  return encodeURIComponent(wellFormed)
    .replace(/[!'()*~]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/^\./, '%2E')
}
