import { StartError } from '../core/errors.js'
import type { Runtime } from '../io/runtime.js'
import type { Child } from '../testbed/child-process.js'

/** Ends what is under way as soon as something that it needs is gone, or the process is asked to stop. */
export interface Guard {
  /** Rejects with whatever went wrong first, past or future, when that is before the promise settles. */
  readonly unlessFailed: <T>(promise: Promise<T>) => Promise<T>
  readonly pause: (seconds: number) => Promise<void>
  readonly fail: (error: Error) => void
  /** From now on it must run. */
  readonly watch: (child: Child) => void
  /** What ends from now on is meant to. */
  readonly release: () => void
}

export function createGuard({ clock, signal }: Pick<Runtime, 'clock' | 'signal'>): Guard {
  let released = false
  let reject: (error: Error) => void = () => undefined
  const failed = new Promise<never>((_, refuse) => {
    reject = refuse
  })
  failed.catch(() => undefined) // whoever waits hears of it
  /** A pause that nobody waits for any more must not keep the process alive. */
  const pauses = new AbortController()
  const fail = (error: Error): void => {
    if (released) return
    reject(error)
    pauses.abort()
  }
  const stop = (): void => fail(new StartError('stopped'))
  if (signal.aborted) stop()
  else signal.addEventListener('abort', stop, { once: true })
  const unlessFailed = <T>(promise: Promise<T>): Promise<T> => Promise.race([failed, promise])
  return {
    unlessFailed,
    pause: (seconds) => unlessFailed(clock.sleep(seconds * 1000, pauses.signal)),
    fail,
    watch: (child) => {
      endOf(child).catch(fail)
    },
    release: () => {
      released = true
    },
  }
}

/** Rejects with a StartError that has its last words when a process ends. */
export function endOf(child: Child): Promise<never> {
  return child.waitForLine<never>(() => undefined)
}
