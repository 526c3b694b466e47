import prettier from 'prettier'
import { Document, parseDocument } from 'yaml'

import { dashboard } from './grafana-dashboard.js'

/** The rules, as Prometheus itself reads them, and the object for Prometheus Operator that is made of them. */
export const RULES = [
  {
    name: 'meshfever-alerts',
    source: 'k8s/prometheus/alerts.rules.yaml',
    made: 'k8s/prometheus/alerts.prometheusrule.yaml',
  },
  {
    name: 'meshfever-recording',
    source: 'k8s/prometheus/recording.rules.yaml',
    made: 'k8s/prometheus/recording.prometheusrule.yaml',
  },
] as const

export const DASHBOARD = 'k8s/grafana/meshfever-dashboard.json'

/**
 * The manifests that are not written by hand.
 *
 * @param read - the text of a file of the package, by its path in it
 * @returns path in the package -> text
 */
export async function renderManifests(read: (path: string) => string): Promise<ReadonlyMap<string, string>> {
  const style = JSON.parse(read('.prettierrc.json')) as prettier.Options
  const format = (text: string, parser: 'yaml' | 'json'): Promise<string> => prettier.format(text, { ...style, parser })
  const rules = RULES.map(
    async ({ name, source, made }) => [made, await format(prometheusRule(name, source, read(source)), 'yaml')] as const,
  )
  return new Map([...(await Promise.all(rules)), [DASHBOARD, await format(JSON.stringify(dashboard()), 'json')]])
}

/** The rules and the comments between them under `spec`. */
function prometheusRule(name: string, source: string, rulesText: string): string {
  const object = new Document({
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: {
      name,
      labels: { 'app.kubernetes.io/name': 'meshfever', 'app.kubernetes.io/part-of': 'meshfever' },
    },
  })
  object.commentBefore = ` Made of ${source.split('/').at(-1) ?? source} by \`npm run render\`: change that.`
  object.set('spec', parseDocument(rulesText).contents)
  return object.toString({ lineWidth: 140 })
}
