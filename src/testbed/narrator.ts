import type { Runtime } from '../io/runtime.js'

/** Says to a reader what happens, each line with the minutes and seconds since the start. */
export function createNarrator({ clock, stdout }: Pick<Runtime, 'clock' | 'stdout'>): (text: string) => Promise<void> {
  const startMs = clock.monotonicMs()
  return (text) => {
    const seconds = Math.round((clock.monotonicMs() - startMs) / 1000)
    const time = `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`
    return stdout.write(`${time}  ${text}\n`)
  }
}
