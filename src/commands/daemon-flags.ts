import { anyText, httpUrl, intervalSeconds, oneOf, optional, port, required, toggle, withDefault } from './flags.js'

/** Flags that both daemons have. */
export const daemonFlags = {
  'prometheus-url': required(httpUrl, 'base URL of Prometheus'),
  'poll-interval-seconds': withDefault(intervalSeconds, '5', 'seconds between polls'),
  'listen-address': withDefault(anyText, '0.0.0.0', 'address on which this daemon serves /metrics'),
  'log-format': optional(oneOf('json', 'table'), 'json or table; unless given, table on a terminal and json elsewhere'),
  check: toggle('check flags, files and queries and exit without serving'),
} as const

/** The port on which a daemon serves /metrics, under the name that existing Deployments use. */
export const servePort = (defaultText: string) =>
  withDefault(port, defaultText, 'port on which this daemon serves /metrics (0: any free one)')
