//! What is done with the ways of one set. Common numbers of ways are constants, so that the host need
//! not ask after each way whether it was the last.

/// Which of the first ways holds the tag.
#[inline(always)]
pub(super) fn way_of(tags: &[u64], ways: usize, tag: u64) -> Option<usize> {
    match ways {
        4 => way_of_few::<4>(tags, tag),
        6 => way_of_few::<6>(tags, tag),
        _ => tags[..ways].iter().position(|&way| way == tag),
    }
}

#[inline(always)]
fn way_of_few<const WAYS: usize>(tags: &[u64], tag: u64) -> Option<usize> {
    let mut found = 0_u32;
    for (way, &candidate) in tags.first_chunk::<WAYS>()?.iter().enumerate() {
        found |= u32::from(candidate == tag) << way;
    }
    (found != 0).then(|| found.trailing_zeros() as usize)
}

/// The first of the ways with the smallest stamp. No two ways of a full set have the same.
#[inline(always)]
pub(super) fn oldest_of(stamps: &[u32], ways: usize) -> usize {
    match ways {
        4 => oldest_of_few::<4>(stamps),
        6 => oldest_of_few::<6>(stamps),
        8 => oldest_of_few::<8>(stamps),
        12 => oldest_of_few::<12>(stamps),
        _ => (0..ways).min_by_key(|&way| stamps[way]).unwrap_or(0),
    }
}

#[inline(always)]
fn oldest_of_few<const WAYS: usize>(stamps: &[u32]) -> usize {
    let Some(stamps) = stamps.first_chunk::<WAYS>() else {
        return 0;
    };
    let mut least = u64::MAX;
    for (way, &stamp) in stamps.iter().enumerate() {
        // Stamp above way in one word: the least of them is found without a branch.
        least = least.min(u64::from(stamp) << u32::BITS | way as u64);
    }
    least as u32 as usize
}

/// Makes the tree's bits on the way to a way point to the other side.
pub(super) fn point_away(tree: &mut u64, ways: usize, way: usize) {
    let mut node = 1_usize;
    let mut half = ways / 2;
    while half > 0 {
        let right = way & half != 0;
        *tree = *tree & !(1 << node) | u64::from(!right) << node;
        node = node * 2 + usize::from(right);
        half /= 2;
    }
}
