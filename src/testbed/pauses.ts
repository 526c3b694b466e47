/** Timers that can all be ended at once, so that nothing outlives the testbed. */
export interface Pauses {
  /** Resolves after `ms`; never, when the testbed is closed before. */
  readonly pause: (ms: number) => Promise<void>
  /** Drops every running pause. Whoever awaits one is answered by its own connection being cut. */
  readonly drop: () => void
}

export function createPauses(): Pauses {
  const running = new Set<NodeJS.Timeout>()
  return {
    pause: (ms) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => {
          running.delete(timer)
          resolve()
        }, ms)
        running.add(timer)
      }),
    drop: () => {
      for (const timer of running) clearTimeout(timer)
      running.clear()
    },
  }
}
