/** What bench/soak-daemon.ts tells bench/soak.ts. */

/** The message of the line that says that the soak is over. */
export const SOAK_OVER = 'soak over'

/** After a garbage collection. */
export interface HeapReading {
  readonly heapBytes: number
  readonly rssBytes: number
}
