//! The tables of one write transaction, each opened at most once.

use redb::WriteTransaction;

use crate::error::Stop;
use crate::format::Table;

pub(super) type WriteTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Opens tables when they are first needed, and knows whether anything was written.
pub(super) struct Opened<'t> {
    transaction: &'t WriteTransaction,
    tables: [Option<WriteTable<'t>>; Table::ALL.len()],
    wrote: bool,
}

impl<'t> Opened<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            transaction,
            tables: [const { None }; Table::ALL.len()],
            wrote: false,
        }
    }

    /// A table to read from.
    pub(super) fn read(&mut self, table: Table) -> Result<&WriteTable<'t>, Stop> {
        Ok(self.open(table)?)
    }

    /// A table to write to.
    pub(super) fn write(&mut self, table: Table) -> Result<&mut WriteTable<'t>, Stop> {
        self.wrote = true;
        self.open(table)
    }

    /// Whether a table was asked for to write to it.
    pub(super) const fn wrote(&self) -> bool {
        self.wrote
    }

    fn open(&mut self, table: Table) -> Result<&mut WriteTable<'t>, Stop> {
        let slot = &mut self.tables[table as usize];
        let opened = match slot.take() {
            Some(opened) => opened,
            None => self.transaction.open_table(table.definition())?,
        };
        Ok(slot.insert(opened))
    }
}
