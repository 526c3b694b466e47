import type { TestContext } from 'node:test'

import { startHttpServer } from './local-server.js'

/** What an Alertmanager told a receiver. */
export interface Notification {
  readonly receiver: string
  readonly status: 'firing' | 'resolved'
  /** `sev2 firing`, `sev1 resolved`, ...: the alerts in it, in alphabetical order. */
  readonly alerts: readonly string[]
  readonly atMs: number
  /** As it came. */
  readonly body: WebhookMessage
}

/** The part of Alertmanager's webhook message that is looked at. */
export interface WebhookMessage {
  readonly receiver: string
  readonly status: 'firing' | 'resolved'
  readonly alerts: readonly {
    readonly status: 'firing' | 'resolved'
    readonly labels: Readonly<Record<string, string>>
    readonly annotations: Readonly<Record<string, string>>
    readonly startsAt: string
    readonly endsAt: string
  }[]
}

export interface Webhook {
  readonly url: string
  readonly notifications: readonly Notification[]
  /** Resolves when there are at least so many. */
  readonly received: (count: number) => Promise<void>
  /** Everything that came, one line a notification. */
  readonly told: () => readonly string[]
}

/** A receiver of notifications on a free port, which takes each at once. */
export async function startWebhook(t: TestContext): Promise<Webhook> {
  const notifications: Notification[] = []
  const waiting = new Set<() => void>()
  const { url } = await startHttpServer(t, (request, response) => {
    let text = ''
    request.on('data', (data: Buffer) => (text += data.toString()))
    request.on('end', () => {
      response.end()
      const body = JSON.parse(text) as WebhookMessage
      notifications.push({
        receiver: body.receiver,
        status: body.status,
        alerts: body.alerts.map(({ status, labels }) => `${labels['severity'] ?? ''} ${status}`).sort(),
        atMs: Date.now(),
        body,
      })
      for (const look of waiting) look()
    })
  })
  return {
    url,
    notifications,
    received: (count) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (notifications.length < count) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      }),
    told: () => notifications.map(({ receiver, alerts }) => `${receiver}: ${alerts.join(', ')}`),
  }
}
