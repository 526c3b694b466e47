/** How long things on a cluster may take, milliseconds. */
export interface KubernetesLimits {
  /** One kubectl command. */
  readonly commandMs: number
  /** Reading the application's manifests, which may come over the network. */
  readonly manifestsMs: number
  /** Until every pod of the application is ready: Sock Shop's say so after three minutes at the earliest. */
  readonly readyMs: number
  /** How long a pod may be in a state that only a person ends, such as a missing image. */
  readonly hopelessMs: number
  /** Until the port-forward of Prometheus is there, at first and again. */
  readonly forwardMs: number
  /** Until Prometheus has the metrics of every pair, from the first users on. */
  readonly metricsMs: number
  /** Until latency has risen by a fault's delay, on top of two windows of the query. */
  readonly effectSpareMs: number
  /** For a command that is creating things to end when the process is asked to stop. */
  readonly graceMs: number
  /** All of the cleaning up. */
  readonly cleanupMs: number
  /** Between two looks at something that takes its time. */
  readonly pollMs: number
  /** Between two looks at what should just stay as it is. */
  readonly watchMs: number
}

export const KUBERNETES_LIMITS: KubernetesLimits = {
  commandMs: 30_000,
  manifestsMs: 120_000,
  readyMs: 15 * 60_000,
  hopelessMs: 60_000,
  forwardMs: 60_000,
  metricsMs: 180_000,
  effectSpareMs: 30_000,
  graceMs: 5_000,
  cleanupMs: 45_000,
  pollMs: 3_000,
  watchMs: 15_000,
}
