import { el, setAttribute, setText } from './dom.js'

/** How it stands, in a colour and a shape of its own. */
export type Level = 'ok' | 'warning' | 'critical' | 'quiet' | 'unknown'

export interface Status {
  readonly level: Level
  /** One or two words, large. */
  readonly word: string
  /** Since when, or what was last known; ticks. */
  readonly since: string
  /** Why, in a sentence. */
  readonly because: string
}

/** Told apart by outline alone: circle, triangle, octagon, dashes, broken circle. */
const SHAPES: Readonly<Record<Level, readonly string[]>> = {
  ok: ['M24 3a21 21 0 1 0 0 42a21 21 0 1 0 0-42z', 'M14 25l7 7l13-15'],
  warning: ['M24 4L46 43H2z', 'M24 18v12', 'M24 36v.5'],
  critical: ['M15 3h18l12 12v18l-12 12h-18l-12-12v-18z', 'M24 12v15', 'M24 34.5v.5'],
  quiet: ['M5 5h38v38H5z', 'M14 33v-4', 'M24 33v-9', 'M34 33v-4'],
  unknown: [
    'M12 7a21 21 0 0 1 24 0',
    'M43 15a21 21 0 0 1 0 18',
    'M36 41a21 21 0 0 1-24 0',
    'M5 33a21 21 0 0 1 0-18',
    'M18 19a6 6 0 1 1 8.5 5.4c-1.8.8-2.5 2-2.5 4.1',
    'M24 35v.5',
  ],
}

export interface StatusCard {
  readonly element: HTMLElement
  show(status: Status): void
}

/** The one thing to be read from across the room. A screen reader hears the word when it changes, not every number. */
export function createStatusCard(): StatusCard {
  const icon = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  icon.setAttribute('viewBox', '0 0 48 48')
  icon.setAttribute('aria-hidden', 'true')
  const word = el('span', { class: 'status-word' })
  const because = el('p', { class: 'status-because' })
  const since = el('p', { class: 'status-since' })
  const element = el(
    'section',
    { class: 'status', 'aria-labelledby': 'status-title' },
    el('h2', { id: 'status-title', class: 'unseen' }, 'Status'),
    icon,
    el('div', { class: 'status-text' }, el('p', { role: 'status' }, word), because, since),
  )
  let shape: Level | null = null
  return {
    element,
    show: (status) => {
      setAttribute(element, 'data-level', status.level)
      setText(word, status.word)
      setText(because, status.because)
      setText(since, status.since)
      if (shape === status.level) return
      shape = status.level
      icon.replaceChildren(
        ...SHAPES[shape].map((d) => {
          const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
          path.setAttribute('d', d)
          return path
        }),
      )
    },
  }
}

export interface Tile {
  readonly element: HTMLElement
  show(value: string, note?: string): void
}

/** One number with its name. */
export function createTile(name: string): Tile {
  const value = el('span', { class: 'tile-value' })
  const note = el('span', { class: 'tile-note' })
  return {
    element: el('div', { class: 'tile' }, el('dt', {}, name), el('dd', {}, value, note)),
    show: (text, more = '') => {
      setText(value, text)
      setText(note, more)
    },
  }
}
