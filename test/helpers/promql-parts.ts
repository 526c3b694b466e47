import { parser } from '@prometheus-io/lezer-promql'

/** One series selector: the metric it names and the labels it matches. */
export interface Selector {
  readonly metric: string
  readonly matchers: readonly { readonly label: string; readonly operator: string; readonly value: string }[]
}

/** The selectors of a query that parses. Braces without a metric name before them have the metric ''. */
export function selectorsOf(query: string): readonly Selector[] {
  const found: Selector[] = []
  parser.parse(query).iterate({
    enter: ({ name, node }) => {
      if (name !== 'VectorSelector') return
      const text = query.slice(node.from, node.to)
      const [, metric = '', braces = ''] = /^([a-zA-Z_:][\w:]*)?\s*(?:\{(.*)\})?$/s.exec(text) ?? []
      const matchers = [...braces.matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)]
      found.push({
        metric,
        matchers: matchers.map(([, label = '', operator = '', value = '']) => ({ label, operator, value })),
      })
    },
  })
  return found
}
