import type { PageState } from '../page-state.js'
import type { Freshness } from './freshness.js'
import type { Status } from './status.js'

/** What a view needs to know beside its own part of the state. */
export interface Moment {
  readonly state: PageState
  readonly freshness: Freshness
  /** By the daemon's clock. */
  readonly nowSeconds: number
}

/** The page of one daemon. */
export interface View<T> {
  readonly element: HTMLElement
  /** What it is about, for the header. */
  readonly title: (view: T) => string
  /** @returns the status, for the window's title */
  readonly show: (view: T, moment: Moment) => Status
  /** Asks the daemon for more than the state holds, where somebody wants to see it. Never rejects. */
  readonly refresh?: () => Promise<void>
  /** Draws the charts again, in the colours that hold now. */
  readonly repaint: () => void
}
