//! Finds cycles, one for every tangle of nodes that wait for each other.

/// One cycle per strongly connected part of the graph, each as node indexes from parent to child,
/// beginning with its lowest index. `parents[n]` lists the parents of node `n`.
///
/// No recursion: the depth of a graph is up to its author.
pub(super) fn cycles(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut cycles: Vec<Vec<usize>> = components(parents)
        .into_iter()
        .filter(|part| part.len() > 1 || parents[part[0]].contains(&part[0]))
        .map(|part| cycle_in(parents, part))
        .collect();
    cycles.sort_unstable();
    cycles
}

/// Walks from child to parent inside one part until a node comes again.
fn cycle_in(parents: &[Vec<usize>], mut part: Vec<usize>) -> Vec<usize> {
    part.sort_unstable();
    let mut place = vec![None; part.len()];
    let mut walk: Vec<usize> = Vec::new();
    let mut at = 0;
    while place[at].is_none() {
        place[at] = Some(walk.len());
        walk.push(part[at]);
        let inside = parents[part[at]]
            .iter()
            .find_map(|parent| part.binary_search(parent).ok());
        // Every node of a strongly connected part has a parent in it.
        match inside {
            Some(next) => at = next,
            None => break,
        }
    }
    let mut cycle = walk.split_off(place[at].unwrap_or(0));
    cycle.reverse();
    let lowest = (0..cycle.len()).min_by_key(|&i| cycle[i]).unwrap_or(0);
    cycle.rotate_left(lowest);
    cycle
}

/// The strongly connected parts (Tarjan's algorithm, with a stack of its own).
fn components(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let count = parents.len();
    let mut number = vec![NEW; count];
    let mut low = vec![0; count];
    let mut open = vec![false; count];
    let mut stack: Vec<usize> = Vec::new();
    let mut parts = Vec::new();
    let mut next = 0;
    for root in 0..count {
        if number[root] != NEW {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, tried)) = path.last_mut() {
            let node = *node;
            if *tried == 0 {
                number[node] = next;
                low[node] = next;
                next += 1;
                stack.push(node);
                open[node] = true;
            }
            if let Some(&parent) = parents[node].get(*tried) {
                *tried += 1;
                if number[parent] == NEW {
                    path.push((parent, 0));
                } else if open[parent] {
                    low[node] = low[node].min(number[parent]);
                }
                continue;
            }
            path.pop();
            if let Some(&(child, _)) = path.last() {
                low[child] = low[child].min(low[node]);
            }
            if low[node] == number[node] {
                let at = stack.iter().rposition(|&n| n == node).unwrap_or(0);
                let part = stack.split_off(at);
                for &member in &part {
                    open[member] = false;
                }
                parts.push(part);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tangle_gives_one_cycle_from_its_lowest_node() {
        // 0 <- 1 <- 2 <- 0, 3 alone, 4 <-> 5 behind the first tangle, 6 waits for itself.
        let parents = vec![
            vec![2],
            vec![0],
            vec![1],
            vec![2],
            vec![5, 0],
            vec![4],
            vec![6],
        ];
        assert_eq!(cycles(&parents), vec![vec![0, 1, 2], vec![4, 5], vec![6]]);
    }

    #[test]
    fn a_long_chain_has_no_cycle_and_needs_no_stack() {
        let parents: Vec<Vec<usize>> = (0..100_000)
            .map(|n: usize| n.checked_sub(1).into_iter().collect())
            .collect();
        assert!(cycles(&parents).is_empty());
    }
}
