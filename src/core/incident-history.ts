import type { Evidence } from './evidence.js'
import type { Severity } from './incident.js'

/** One incident, as far as it is known. */
export interface IncidentRecord {
  readonly id: string
  /** The worst that it had. */
  readonly severity: Severity
  /** Unix seconds. */
  readonly startedSeconds: number
  readonly endedSeconds: number | null
  readonly outcome: 'open' | 'resolved' | 'expired' | 'merged'
  /** In time order: the first and the newest MAX_TRANSITIONS - 1. */
  readonly transitions: readonly Evidence[]
  /** How many were left out after the first. */
  readonly transitionsLeftOut: number
}

/** Newest first, at most MAX_INCIDENTS. */
export type IncidentHistory = readonly IncidentRecord[]

/** What GET /api/incidents answers. */
export interface IncidentHistoryJson {
  readonly incidents: IncidentHistory
}

export const MAX_INCIDENTS = 100
export const MAX_TRANSITIONS = 50

/** The history with one more transition; later ones come later. */
export function withTransition(history: IncidentHistory, evidence: Evidence): IncidentHistory {
  const { id, severity, previousSeverity, startedSeconds, timestampSeconds, transition } = evidence
  const known = history.find((record) => record.id === id)
  const closed = transition === 'resolved' || transition === 'expired' || transition === 'merged'
  const transitions = [...(known?.transitions ?? []), evidence]
  const leftOut = transitions.length > MAX_TRANSITIONS ? 1 : 0
  const worst = Math.min(known?.severity ?? 2, severity ?? 2, previousSeverity ?? 2) === 1 ? 1 : 2
  const record: IncidentRecord = {
    id,
    severity: worst,
    startedSeconds,
    endedSeconds: closed ? timestampSeconds : null,
    outcome: closed ? transition : 'open',
    transitions: leftOut === 0 ? transitions : [...transitions.slice(0, 1), ...transitions.slice(2)],
    transitionsLeftOut: (known?.transitionsLeftOut ?? 0) + leftOut,
  }
  return [record, ...history.filter((other) => other.id !== id)].slice(0, MAX_INCIDENTS)
}
