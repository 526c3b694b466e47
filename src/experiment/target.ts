import type { LoadShape } from '../testbed/load.js'
import type { Experiment, Fault } from './experiment-file.js'

/** Where an experiment runs. */
export interface Target {
  /**
   * Brings the application and its users up, and Prometheus within reach.
   *
   * @throws {UsageError} when the target cannot run this experiment at all
   * @throws {StartError} when something does not come up; what had been started or applied is undone
   */
  readonly start: (experiment: Experiment) => Promise<Stage>
}

/** A target that is up. */
export interface Stage {
  /** Where Istio's metrics are: in a Prometheus of the application's own, or to be scraped by the experiment's. */
  readonly metrics:
    | { readonly kind: 'prometheus'; readonly url: string }
    | { readonly kind: 'scrape'; readonly metricsPath: string; readonly targetsFile: string }
  /** What runs, with versions, for the record. */
  readonly versions: Readonly<Record<string, string>>
  /** Users as the shape says, from now on: its second 0 is now. */
  readonly applyLoad: (load: LoadShape) => Promise<void>
  /** As `kubectl apply`; resolves when it is in force. */
  readonly applyFault: (fault: Fault) => Promise<void>
  /** As `kubectl delete`. */
  readonly removeFault: (fault: Fault) => Promise<void>
  /** Rejects when something that must run has ended by itself. */
  readonly failed: Promise<never>
  /** Ends and removes everything that was started or applied, in any state, more than once. */
  readonly close: () => Promise<void>
}
