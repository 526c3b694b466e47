/*
 * Which of several monitors watches an edge. FNV-1a of 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv) over the UTF-8 bytes of
 * the JSON of [source, destination], then jump consistent hash (Lamping & Veach, A Fast, Minimal Memory, Consistent Hash
 * Algorithm, arXiv:1406.2294): from N to N + 1 shards only one edge in N + 1 moves, and all of those to the new shard.
 */
import { type Pair, pairKey } from './pair.js'

/** One of several monitors that share a mesh. */
export interface Shard {
  /** From 1 to `count`. */
  readonly ordinal: number
  readonly count: number
}

export const MAX_SHARDS = 1_000

/** @returns the ordinal of the shard that watches the edge, from 1 to `count` */
export function shardOf(pair: Pair, count: number): number {
  return count === 1 ? 1 : jumpHash(fnv1a64(new TextEncoder().encode(pairKey(pair))), count) + 1
}

/** @returns from 0 to buckets - 1 */
export function jumpHash(key: bigint, buckets: number): number {
  let bucket = -1
  let next = 0
  for (let state = key; next < buckets;) {
    bucket = next
    state = BigInt.asUintN(64, state * 2_862_933_555_777_941_757n + 1n)
    next = Math.floor((bucket + 1) * (2 ** 31 / (Number(state >> 33n) + 1)))
  }
  return bucket
}

export function fnv1a64(bytes: Uint8Array): bigint {
  let hash = 0xcbf2_9ce4_8422_2325n
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100_0000_01b3n)
  return hash
}

/** The ordinal of a StatefulSet's pod, which Kubernetes appends to its name, counted from 0. Null for another name. */
export function podOrdinal(podName: string): number | null {
  const [, digits] = /^.+-(0|[1-9]\d{0,5})$/.exec(podName) ?? []
  return digits === undefined ? null : Number(digits)
}
