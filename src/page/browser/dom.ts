/** Text becomes text nodes, whatever is in it: nothing here ever parses markup. */
export type Child = Node | string | null

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children.filter((child) => child !== null))
  return made
}

/** Leaves alone what says it already, so that a screen reader is not told twice. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text
}

export function setAttribute(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value)
}

/** The part of index.html with this id. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`index.html has no #${id}`)
  return found
}

/** A titled part of the page. */
export function panel(id: string, title: string, ...children: readonly Child[]): HTMLElement {
  return el(
    'section',
    { class: `panel panel-${id}`, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title),
    ...children,
  )
}

/** A table whose cells know their column, for screens too narrow for columns. */
export function table(
  caption: string,
  columns: readonly string[],
  rows: readonly (readonly Child[])[],
  attributes: Readonly<Record<string, string>> = {},
): HTMLTableElement {
  return el(
    'table',
    attributes,
    el('caption', { class: 'unseen' }, caption),
    el('thead', {}, el('tr', {}, ...columns.map((column) => el('th', { scope: 'col' }, column)))),
    el(
      'tbody',
      {},
      ...rows.map((cells) =>
        el('tr', {}, ...cells.map((cell, i) => el('td', { 'data-column': columns[i] ?? '' }, cell))),
      ),
    ),
  )
}
